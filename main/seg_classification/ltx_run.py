"""A run of LTX or pLTX masks over an image set, shared by classification, segmentation and the demo."""

import dataclasses
import logging
from pathlib import Path

from ltx.config import UserError, recipe_suffix
from ltx.datasets.base import ImageSet
from ltx.main.common.devices import speed_up
from ltx.main.common.memory import AUTO, SideBySide, measure_slot
from ltx.main.runs.build_images import choose_images
from ltx.main.runs.build_models import (
    RANDOMISED_EXPLAINEE,
    explainee_record,
    explainer_name,
    model_to_explain,
    objective,
    pretrained_explainer,
    with_explainer_named,
)
from ltx.main.runs.mask_files import MaskUnit
from ltx.main.runs.mask_job import UnitInput, make_masks
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.checkpoints import load_state, weights_sha256
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.losses import Objective
from ltx.models.published import training_state
from ltx.models.registry import pair_folder

log = logging.getLogger(__name__)

# The released finetuning goes on with pretraining's schedule as if it were this long, at this peak.
RELEASED_PEAK, _RELEASED_STEPS = 2e-3, 250_000


def run_ltx(options: FinetuneOptions, explainee: Explainee, images: ImageSet, folder: Path, device) -> dict:
    """Fills `folder` with LTX masks (pLTX masks with `RUN_BASE_MODEL`) and returns its run.json.

    Args:
        options: what to do.
        explainee: on the device.
        images: the image set.
        folder: the run folder.
        device: where to compute.

    Raises:
        UserError: no pLTX explainer, no images, another run in the folder, ...
    """
    options = with_explainer_named(options)
    explainer, path, metadata = pretrained_explainer(options, explainee)
    explainer.to(device)
    print(f"pLTX explainer: {path}")
    settings = finetune_settings(options, explainer, path)
    method = "pltx" if options.RUN_BASE_MODEL else "ltx"
    identity = {"explainee": weights_sha256(explainee.model), "explainer": weights_sha256(explainer)}
    record = {
        "method": method,
        "explainee": explainee_record(options, explainee),
        "explainer": {"name": explainer.name, "checkpoint": str(path), "sha256": identity["explainer"]}
        | metadata,
        "candidates": candidates(options),
    }
    explained = model_to_explain(explainee, options)
    if options.randomise_weights and not metadata.get(RANDOMISED_EXPLAINEE):
        log.warning(
            "%s was pretrained on the true model, and masks keep what it learned there; for the whole "
            "method's sanity check pretrain with run_seg_cls.py --randomise-weights True, and pass "
            "--explainer-checkpoint",
            path,
        )
    speed_up(options, explainee, explainer)
    if explained is not explainee:
        speed_up(options, explained)
    loss, side_by_side = objective(options), None
    chosen = choose_images(images, options)
    if not options.RUN_BASE_MODEL:
        memory = measure_slot(explainer, explained, loss)
        at_most = min(len(chosen), options.unit_size)
        side_by_side = SideBySide(options.batch_size, memory, device, at_most)
    make = _UnitMaker(explainer, explained, loss, settings, side_by_side)
    attributes = {"method": method, "explainer": explainer.name}
    return make_masks(
        folder,
        options,
        explainee,
        images,
        chosen,
        identity,
        record,
        make,
        options.unit_size,
        device,
        attributes,
    )


@dataclasses.dataclass
class _UnitMaker:
    """The masks of one work unit: by finetuning, or by one forward pass without `side_by_side`."""

    explainer: Explainer
    explainee: Explainee
    objective: Objective
    settings: Settings
    side_by_side: SideBySide | None

    def __call__(self, unit: UnitInput) -> MaskUnit:
        if self.side_by_side is None:
            masks, figures = pltx(self.explainer, unit.images, unit.classes), {}
            unit.progress(len(unit.images))
        else:
            masks, figures = self.side_by_side.run(lambda slots: self._finetune(unit, slots))
        arrays = {name: values.cpu().numpy() for name, values in figures.items()}
        return MaskUnit(None, None, {name: mask.cpu().numpy() for name, mask in masks.items()}, {}, arrays)

    def _finetune(self, unit: UnitInput, slots: int) -> tuple[dict, dict]:
        done = []

        def progress(n: int) -> None:
            done.append(n)
            unit.progress(n)

        settings = dataclasses.replace(self.settings, slots=slots)
        try:
            return finetune(
                self.explainer,
                self.explainee,
                unit.images,
                unit.classes,
                unit.scored,
                self.objective,
                settings,
                progress,
            )
        except BaseException:
            unit.progress(-sum(done))  # the unit is begun anew with fewer slots
            raise


def default_run_name(options: FinetuneOptions, images_name: str) -> str:
    """Folder name from the pair, the class that is explained, the method and the recipe."""
    pair = pair_folder(explainer_name(options), options.explainee_model_name).name
    kind = "target" if options.train_model_by_target_gt_class else "predicted"
    method = ("pltx" if options.RUN_BASE_MODEL else "ltx") + recipe_suffix(options.recipe)
    return f"{images_name}-{pair}-{kind}-{method}{'-randomised' if options.randomise_weights else ''}"


def candidates(options: FinetuneOptions) -> dict[str, int]:
    """How many masks each variant was chosen from; `best_loss` was chosen by the loss, not by a metric."""
    if options.RUN_BASE_MODEL:
        return {"pltx": 1}
    n = options.n_epochs_to_optimize_stage_b
    selected = {"best_pos": n, "best_neg": n} if options.select_best else {}
    return {"pltx": 1, "last": 1, "best_loss": n} | selected


def finetune_settings(options: FinetuneOptions, explainer: Explainer, checkpoint: Path) -> Settings:
    """`Settings` of the options; reads the optimiser's state for `--finetune-lr released`.

    Raises:
        UserError: a rate that is no number, or no stored optimiser.
    """
    batch_size = 1 if options.batch_size == AUTO else options.batch_size
    if options.n_epochs_to_optimize_stage_b < 1 or batch_size < 1 or options.unit_size < 1:
        raise UserError("--n_epochs_to_optimize_stage_b, --batch-size and --unit-size must be at least 1")
    if options.lr is not None and options.finetune_lr != "released":
        log.warning("--lr has no effect without --finetune-lr released; the constant rate is --finetune-lr")
    if options.early_stop and not options.select_best:
        raise UserError("--early-stop True stops by the scores that --select-best False leaves out")
    schedule, moments, lr = None, None, 0.0
    if options.finetune_lr == "released" and not options.RUN_BASE_MODEL:
        schedule, moments = _released(checkpoint, explainer, options.lr or RELEASED_PEAK)
    elif not options.RUN_BASE_MODEL:
        try:
            lr = float(options.finetune_lr)
        except ValueError:
            raise UserError(f"--finetune-lr {options.finetune_lr}: wanted a number or 'released'") from None
    return Settings(
        n_steps=options.n_epochs_to_optimize_stage_b,
        lr=lr,
        optimize_by_pos=options.optimize_by_pos,
        early_stop=options.early_stop,
        slots=batch_size,
        schedule=schedule,
        moments=moments,
        select=options.select_best,
    )


def _released(checkpoint: Path, explainer: Explainer, peak: float):
    """Rate by update and AdamW state, as the released code goes on from a checkpoint."""
    names = list(explainer.trainable())
    path = checkpoint if checkpoint.suffix == ".ckpt" else checkpoint.with_suffix(".pt")
    if not path.is_file():
        raise UserError(
            f"--finetune-lr released needs the optimiser's state, and {path} does not exist; pass a "
            "checkpoint of a training run that has it with --explainer-checkpoint, or a number"
        )
    state = training_state(path, names) if path == checkpoint else load_state(path)
    optimizer = state["optimizer"]
    if len(optimizer["state"]) != len(names):
        raise UserError(
            f"{path} belongs to an explainer with other trainable weights than '{explainer.name}' has here"
        )
    by_name = {name: optimizer["state"][i] for i, name in enumerate(names)}
    device = next(explainer.parameters()).device
    moments = {
        key: {name: entry[key].to(device) for name, entry in by_name.items()}
        for key in ("exp_avg", "exp_avg_sq")
    }
    moments["step"] = float(next(iter(by_name.values()))["step"])
    stored, step = optimizer["param_groups"][0]["lr"], state["global_step"]

    def schedule(update: int) -> float:
        return stored if update == 0 else peak * (step + update) / _RELEASED_STEPS

    print(f"finetuning rate: first update {schedule(0):.3g} (stored), then from {schedule(1):.3g}")
    return schedule, moments
