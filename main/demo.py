"""The whole method in one command: pretrain an explainer, explain held-out images and score the masks.

    python main/demo.py
    python main/demo.py --explainee-model-name efficientnet_lite0 --images-path DIR

Without arguments: digits on photographs, a few CPU minutes. The same command resumes; delete
`data/results/demo-<explainee>` to start afresh. Ends in that folder's `report.html`.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

import dataclasses
from dataclasses import dataclass
from typing import Any

from ltx import config
from ltx.config import RECIPES, RELEASED, UserError, recipe_suffix
from ltx.main.common import cli, progress
from ltx.main.common.options import DownloadOptions, ImageOptions, PlaceOptions, RunOptions, option

BASELINES = ("random", "input_gradient", "full_grad")
# Order of the table: first the methods that ignore the model, LTX last.
_ROWS = (*BASELINES, "oracle", "pltx", "last", "best_loss", "best_pos")
_VALIDATION, _ONE_DIGIT_ROWS, _TWO_DIGIT_ROWS = 64, 6, 4


@dataclass(frozen=True, kw_only=True)
class DemoOptions(RunOptions, PlaceOptions, ImageOptions, DownloadOptions):
    """`main/demo.py`: the whole method in one command."""

    explainee_model_name: str = option("vit_digits", "alias or timm name of explainee and explainer")
    recipe: str = option("ordered", "how explainer and masks are trained", choices=tuple(RECIPES))
    n_images: int = option(64, "held-out images that are explained")
    train_images: int = option(
        2000, "images that the explainer is trained on (photographs: at most what is left)"
    )
    n_epochs: int = option(3, "epochs of pretraining")
    seed: int = option(42, "seed of everything random")


class Demo:
    """The runs of the demo, in one folder: pretraining, LTX, baselines and, on digits, the true masks.

    Args:
        options: what the demo was asked for.

    Raises:
        UserError: too few images, no weights, ...
    """

    def __init__(self, options: DemoOptions):
        from ltx.datasets.digits import DigitsOnPhotos
        from ltx.main.common.devices import pick_device
        from ltx.main.runs.build_images import open_image_set
        from ltx.main.runs.build_models import load_explainee
        from ltx.main.seg_classification.options import FinetuneOptions

        name = options.run_name or f"demo-{options.explainee_model_name}{recipe_suffix(options.recipe)}"
        self.options, self.folder = options, (options.default_root_dir or config.RESULTS) / name
        self.device = pick_device(options.device)
        own = ("run_name", "default_root_dir", "recipe", "n_images", "train_images", "n_epochs")
        values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        self.common = {name: value for name, value in values.items() if name not in own}
        any_options = FinetuneOptions(**self.common)
        self.explainee = load_explainee(any_options).to(self.device)
        self.images = open_image_set(any_options, self.explainee)
        self.on_digits = isinstance(self.images, DigitsOnPhotos)
        if self.on_digits:  # they have splits of their own
            self.explained: dict[str, Any] = {"max_images": options.n_images}
            self.trained: dict[str, Any] = {"train_images": options.train_images, "val_images": _VALIDATION}
        else:
            self._draw()

    def _draw(self) -> None:
        """Manifests of disjoint photographs to train, validate and explain on."""
        import numpy as np

        from ltx.main.runs.run_folder import write_manifest

        options, n = self.options, len(self.images)
        if n < options.n_images + 2:
            raise UserError(f"--n-images {options.n_images} needs more than the {n} images there are")
        order = np.random.default_rng(options.seed).permutation(n).tolist()
        rest = order[options.n_images :]
        n_val = min(_VALIDATION, len(rest) // 2)
        parts = {"explained": order[: options.n_images], "val": rest[:n_val]}
        parts["train"] = rest[n_val : n_val + options.train_images]
        files = {name: self.folder / f"{name}_images.csv" for name in parts}
        for name, chosen in parts.items():
            write_manifest(files[name], self.images, chosen)
        self.explained = {"manifest": files["explained"]}
        self.trained = {"train_manifest": files["train"], "val_manifest": files["val"]}

    def pretrain(self) -> None:
        """Train the explainer: pLTX."""
        from ltx.main.runs.build_models import with_explainer_named
        from ltx.main.seg_classification.options import FinetuneOptions, PretrainOptions
        from ltx.main.seg_classification.pretrain_run import pretrain

        how: dict[str, Any] = {"recipe": self.options.recipe, "n_epochs": self.options.n_epochs}
        how |= {"default_root_dir": self.folder, "run_name": "pretraining"}
        options = PretrainOptions(**self.common | self.trained | how)
        explainer, _ = pretrain(options, self.explainee, self.device)
        how = {"recipe": self.options.recipe, "explainer_checkpoint": explainer}
        ltx = FinetuneOptions(**self.common | self.explained | how)
        self.ltx = self._job("ltx", with_explainer_named(ltx))

    def fill(self) -> None:
        """Make the masks of LTX, the baselines' maps and, on digits, the true masks as another method."""
        from ltx.main.baselines.baseline_run import fill_with_baselines
        from ltx.main.baselines.options import BaselineOptions
        from ltx.main.runs.method import Method
        from ltx.main.seg_classification.ltx_run import ltx_method

        self.ltx.fill(ltx_method(self.ltx))
        options = BaselineOptions(**self.common, **self.explained, method=",".join(BASELINES))
        fill_with_baselines(self._job("baselines", options))
        if self.on_digits:
            job = self._job("oracle", dataclasses.replace(options, method="oracle"))
            job.fill(Method("oracle", lambda batch: _true_masks(job, batch)))

    def _job(self, name: str, options):
        from ltx.main.runs.build_images import choose_images
        from ltx.main.runs.mask_job import MaskJob

        chosen = choose_images(self.images, options)
        return MaskJob(self.folder / name, options, self.explainee, self.images, chosen)

    @property
    def runs(self) -> list[Path]:
        """Folders of the runs that were made."""
        return [
            self.folder / name for name in ("baselines", "oracle", "ltx") if (self.folder / name).is_dir()
        ]

    def print_tables(self) -> dict[str, dict[str, float]]:
        """Score every run, print a table for each protocol and return the means by row."""
        from ltx.main.perturbation_eval import evaluator as perturbation
        from ltx.main.perturbation_eval.options import PerturbationOptions
        from ltx.main.runs import tables
        from ltx.main.segmentation_eval import evaluator as segmentation
        from ltx.main.segmentation_eval.options import SegmentationOptions

        device = self.options.device
        workers: dict[str, Any] = {"num_workers": self.options.num_workers}
        candidates = {row: n for run in self.runs for row, n in tables.candidates_of(run).items()}
        protocols: dict[str, Any] = {
            "perturbation (AUCs: 0 to 90)": lambda run: perturbation.evaluate(
                PerturbationOptions(run_folder=run, device=device, **workers)
            )
        }
        if self.on_digits:
            protocols["segmentation of the digit (%)"] = lambda run: segmentation.evaluate(
                SegmentationOptions(run_folder=run, **workers)
            )
        means: dict[str, dict[str, float]] = {}
        for title, evaluate in protocols.items():
            found = {row: scores for run in self.runs for row, scores in evaluate(run).items()}
            found = {row: found[row] for row in _ROWS if row in found}
            title = f"{self.options.n_images} held-out images, {title}"
            print(tables.format_table(found, title, candidates))
            for row, scores in tables.means_of(found).items():
                means.setdefault(row, {}).update(scores)
        return means

    def write_pictures(self) -> Path:
        """Draw the first explained images and, on digits, two-digit images explained for each class."""
        from ltx.datasets.build import stack
        from ltx.main.common.drawing import CELL_TITLES, cells
        from ltx.main.common.figures import write_sheet
        from ltx.main.runs.mask_files import read_unit, unit_files

        unit = read_unit(unit_files(self.ltx.folder)[0])
        maps = unit.maps("last", self.explainee.input_size, slice(_ONE_DIGIT_ROWS))
        pixels = stack(self.images, [self.ltx.chosen[i] for i in unit.index[:_ONE_DIGIT_ROWS]])
        rows = [cells(image, saliency) for image, saliency in zip(pixels, maps, strict=True)]
        captions = [f"class {c}" for c in unit.classes[:_ONE_DIGIT_ROWS]]
        if self.on_digits:
            more, asked = _two_digit_rows(self.ltx)
            rows, captions = rows + more, captions + asked
        write_sheet(self.folder / "pictures.png", rows, CELL_TITLES, captions)
        return self.folder / "pictures.png"

    def write_report(self) -> Path:
        """Write all methods on one page, and their tables as Markdown and LaTeX beside it."""
        from ltx.main.report_page.options import ReportOptions
        from ltx.main.report_page.report_run import make_report

        path, kind = self.folder / "report.html", "digits" if self.on_digits else "photographs"
        title = f"LTX on {kind}, the demo"
        make_report(ReportOptions(runs=tuple(map(str, self.runs)), output=path, title=title))
        return path


def _true_masks(job, batch):
    """The oracle: the true masks of a batch as saliency maps."""
    import torch

    from ltx.main.runs.method import Maps

    masks = [job.images[job.chosen[index]]["mask"] for index in batch.index.tolist()]
    return Maps(saliency={"oracle": torch.stack(masks).float()})


def _two_digit_rows(job) -> tuple[list, list[str]]:
    """Rows and captions of two-digit images, each asked for both digits in turn.

    One pass of the shipped class-conditional explainer; by the released recipe, LTX's last step.
    """
    import torch

    from ltx.datasets.digits import DigitsOnPhotos
    from ltx.main.common.drawing import cells
    from ltx.main.runs.build_models import pretrained_explainer, settled
    from ltx.main.seg_classification.finetuning import finetune, pltx
    from ltx.main.seg_classification.ltx_run import finetune_settings
    from ltx.models.losses import Objective
    from ltx.models.masking import upsample

    options, explainee = job.options, job.explainee
    two = DigitsOnPhotos("test", _TWO_DIGIT_ROWS, explainee.input_size, n_digits=2)
    samples = [two[i] for i in range(len(two)) for _ in range(2)]
    classes = torch.tensor([s["second_label" if i % 2 else "label"] for i, s in enumerate(samples)])
    pixels, asked = torch.stack([s["image"] for s in samples]).to(job.device), classes.to(job.device)
    conditional = options.recipe != RELEASED
    if conditional:
        options = dataclasses.replace(options, class_conditional=True, explainer_checkpoint=None)
    explainer, path, _ = pretrained_explainer(options, explainee)
    explainer.to(job.device)
    if conditional:
        masks, how = pltx(explainer, pixels, asked)["pltx"], "one pass, "
    else:
        settings = dataclasses.replace(finetune_settings(options, explainer, path), select=False)
        objective = Objective.from_options(settled(options, explainer))
        made, _ = finetune(explainer, explainee, pixels, asked, asked, objective, settings)
        masks, how = made["last"], "two digits, "
    maps = upsample(masks, explainee.input_size).cpu()
    rows = [cells(image, saliency) for image, saliency in zip(pixels.cpu(), maps, strict=True)]
    return rows, [f"{how}asked for {c}" for c in classes.tolist()]


@cli.script(DemoOptions)
def main(options: DemoOptions) -> tuple[Path, dict, dict]:
    """Run the demo and print its tables and the paths of its pictures and its report."""
    from ltx.main.runs.skipped import counts

    demo = Demo(options)
    demo.pretrain()
    demo.fill()
    means = demo.print_tables()
    if "best_pos" in means:
        print("best_pos looked at POS to choose its step; the other rows have looked at no metric.")
    print(f"pictures: {progress.display_path(demo.write_pictures())}")
    print(f"report: {progress.display_path(demo.write_report())} (opens in any browser, from disk)")
    return demo.folder, means, counts(demo.folder)


if __name__ == "__main__":
    main()
