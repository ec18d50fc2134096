"""The stages of the demo, each an ordinary run of the scripts that do it for real."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltx.config import RELEASED, UserError
from ltx.datasets.build import stack
from ltx.datasets.digits import DigitsOnPhotos
from ltx.datasets.manifest import from_manifest
from ltx.main.baselines.baseline_run import run_baselines
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common.figures import CELL_TITLES, cells, write_sheet
from ltx.main.demo import DemoOptions
from ltx.main.perturbation_eval import evaluator as perturbation
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.report_run import make_report
from ltx.main.runs.build_images import choose_images, open_image_set
from ltx.main.runs.build_models import explainee_record, load_explainee, pretrained_explainer, settled
from ltx.main.runs.mask_files import MaskUnit, read_unit, unit_files
from ltx.main.runs.mask_job import UnitInput, make_masks
from ltx.main.runs.run_folder import write_manifest
from ltx.main.runs.tables import candidates_of
from ltx.main.seg_classification.finetuning import finetune, pltx
from ltx.main.seg_classification.ltx_run import finetune_settings, run_ltx
from ltx.main.seg_classification.options import FinetuneOptions, PretrainOptions
from ltx.main.seg_classification.pretrain_run import pretrain
from ltx.main.segmentation_eval import evaluator as segmentation
from ltx.main.segmentation_eval.options import SegmentationOptions
from ltx.models.losses import Objective
from ltx.models.masking import upsample

BASELINES = ("random", "input_gradient", "full_grad")
# Order of the table: what looks at nothing first, LTX last.
ROW_ORDER = (*BASELINES, "oracle", "pltx", "last", "best_loss", "best_pos")
_VALIDATION, _ONE_DIGIT_ROWS, _TWO_DIGIT_ROWS = 64, 6, 4


class Demo:
    """Pretraining, masks, scores and pictures of one pair, in one folder.

    Args:
        options: what the demo was asked for.
        folder: where everything goes.
        device: where to compute.

    Raises:
        UserError: too few images, no weights, ...
    """

    def __init__(self, options: DemoOptions, folder: Path, device: torch.device):
        self.options, self.folder, self.device = options, folder, device
        self.common = {"explainee_model_name": options.explainee_model_name, "seed": options.seed}
        self.recipe = {"recipe": options.recipe}
        self.common |= {
            "device": options.device,
            "num_workers": options.num_workers,
            "verbose": options.verbose,
            "download": options.download,
        }
        self.common |= {
            "images_path": options.images_path,
            "labels_path": options.labels_path,
            "split": options.split,
        }
        self.explainee = load_explainee(FinetuneOptions(**self.common)).to(device)
        self.images = open_image_set(FinetuneOptions(**self.common), self.explainee)
        self.on_digits = isinstance(self.images, DigitsOnPhotos)
        self.chosen = self._draw()

    def _draw(self) -> dict[str, Path] | None:
        """Manifests of disjoint photographs to train, validate and explain on; digits have own splits."""
        options, n = self.options, len(self.images)
        if self.on_digits:
            return None
        if n < options.n_images + 2:
            raise UserError(f"--n-images {options.n_images} needs more than the {n} images there are")
        order = np.random.default_rng(options.seed).permutation(n).tolist()
        rest = order[options.n_images :]
        n_val = min(_VALIDATION, len(rest) // 2)
        parts = {"explained": order[: options.n_images], "val": rest[:n_val]}
        parts["train"] = rest[n_val : n_val + options.train_images]
        for name, chosen in parts.items():
            write_manifest(self.folder / f"{name}_images.csv", self.images, chosen)
        return {name: self.folder / f"{name}_images.csv" for name in parts}

    @property
    def _explained(self) -> dict:
        """Options that choose the images to explain."""
        if self.on_digits:
            return {"max_images": self.options.n_images}
        return {"manifest": self.chosen["explained"]}

    def pretrain(self) -> None:
        """pLTX, live."""
        if self.on_digits:
            images = {"train_images": self.options.train_images, "val_images": _VALIDATION}
        else:
            images = {"train_manifest": self.chosen["train"], "val_manifest": self.chosen["val"]}
        places = {"default_root_dir": self.folder, "run_name": "pretraining"}
        epochs = {"n_epochs": self.options.n_epochs}
        options = PretrainOptions(**self.common | self.recipe | images | epochs | places)
        self.explainer_folder, _ = pretrain(options, self.explainee, self.device)

    def _finetune_options(self) -> FinetuneOptions:
        explainer = {"explainer_checkpoint": self.explainer_folder}
        return FinetuneOptions(**self.common | self.recipe | self._explained | explainer)

    def make_masks(self) -> None:
        """LTX masks, baseline maps, and on digits the true masks as if they were a method."""
        run_ltx(self._finetune_options(), self.explainee, self.images, self.folder / "ltx", self.device)
        options = BaselineOptions(**self.common, **self._explained, method="")
        run_baselines(self.explainee, self.images, self.folder / "baselines", BASELINES, self.device, options)
        if self.on_digits:
            self._write_oracle(dataclasses.replace(options, method="oracle"))

    def _write_oracle(self, options: BaselineOptions) -> None:
        chosen = choose_images(self.images, options)

        def make(unit: UnitInput) -> MaskUnit:
            masks = torch.stack([self.images[chosen[index]]["mask"] for index in unit.index.tolist()])
            unit.progress(len(masks))
            return MaskUnit(None, None, {}, {"oracle": masks.float().numpy()})

        record = {"method": "oracle", "explainee": explainee_record(options, self.explainee)}
        make_masks(
            self.folder / "oracle", options, self.explainee, self.images, chosen,
            {"explainee": record["explainee"]["sha256"]}, record, make, options.unit_size, self.device,
            {"method": "oracle"},
        )  # fmt: skip

    def score_perturbation(self) -> dict[str, dict]:
        """Rows of the perturbation metrics, in the table's order."""
        options = {"device": self.options.device, "num_workers": self.options.num_workers}
        return self._rows(lambda run: perturbation.evaluate(PerturbationOptions(run_folder=run, **options)))

    def score_segmentation(self) -> dict[str, dict]:
        """Rows of the segmentation metrics, in the table's order; digits have exact masks."""
        options = {"num_workers": self.options.num_workers}
        return self._rows(lambda run: segmentation.evaluate(SegmentationOptions(run_folder=run, **options)))

    @property
    def _runs(self) -> list[Path]:
        """The runs that were made."""
        runs = [self.folder / name for name in ("baselines", "oracle", "ltx")]
        return [run for run in runs if run.is_dir()]

    def candidates(self) -> dict[str, int]:
        """How many maps each row was chosen from."""
        return {name: n for run in self._runs for name, n in candidates_of(run).items()}

    def _rows(self, evaluate) -> dict[str, dict]:
        rows = {}
        for run in self._runs:
            rows |= evaluate(run)
        return {name: rows[name] for name in ROW_ORDER if name in rows}

    def write_pictures(self) -> Path:
        """The first explained images, and on digits two-digit images explained for each of their classes."""
        path = self.folder / "pictures.png"
        rows, captions = self._explained_rows()
        if self.on_digits:
            more = self._two_digit_rows()
            rows, captions = rows + more[0], captions + more[1]
        write_sheet(path, rows, CELL_TITLES, captions)
        return path

    def write_report(self) -> Path:
        """All methods on one page, and their tables as Markdown and LaTeX beside it."""
        path, title = self.folder / "report.html", "LTX on digits" if self.on_digits else "LTX on photographs"
        make_report(ReportOptions(runs=tuple(map(str, self._runs)), output=path, title=f"{title}, the demo"))
        return path

    def _explained_rows(self):
        unit: MaskUnit = read_unit(unit_files(self.folder / "ltx")[0])
        maps = unit.maps("last", self.explainee.input_size)
        positions = self._positions()[:_ONE_DIGIT_ROWS]
        pixels = stack(self.images, positions)
        rows = [cells(image, saliency) for image, saliency in zip(pixels, maps, strict=False)]
        return rows, [f"class {unit.target[i]}" for i in range(len(rows))]

    def _positions(self) -> list[int]:
        return from_manifest(self.folder / "ltx" / "manifest.csv", self.images)

    def _two_digit_rows(self):
        """Each digit of the same images asked for in turn."""
        two = DigitsOnPhotos("test", _TWO_DIGIT_ROWS, self.explainee.input_size, n_digits=2)
        samples = [two[i] for i in range(len(two)) for _ in range(2)]
        classes = torch.tensor([s["second_label" if i % 2 else "label"] for i, s in enumerate(samples)])
        pixels, classes = torch.stack([s["image"] for s in samples]).to(self.device), classes.to(self.device)
        masks, how = self._two_digit_masks(pixels, classes)
        maps = upsample(masks[:, None], self.explainee.input_size)[:, 0].cpu()
        rows = [cells(image, saliency) for image, saliency in zip(pixels.cpu(), maps, strict=True)]
        return rows, [f"{how}asked for {c}" for c in classes.tolist()]

    def _two_digit_masks(self, pixels: Tensor, classes: Tensor) -> tuple[Tensor, str]:
        """One pass of the shipped class-conditional explainer, by the released recipe LTX's last step."""
        options = self._finetune_options()
        if options.recipe != RELEASED:
            shipped = dataclasses.replace(options, class_conditional=True, explainer_checkpoint=None)
            explainer = pretrained_explainer(shipped, self.explainee)[0].to(self.device)
            return pltx(explainer, pixels, classes)["pltx"], "one pass, "
        explainer, path, _ = pretrained_explainer(options, self.explainee)
        explainer.to(self.device)
        settings = dataclasses.replace(finetune_settings(options, explainer, path), select=False)
        objective = Objective.from_options(settled(options, explainer))
        masks, _ = finetune(explainer, self.explainee, pixels, classes, classes, objective, settings)
        return masks["last"], "two digits, "
