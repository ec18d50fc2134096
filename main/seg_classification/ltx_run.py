"""LTX and pLTX as methods of a mask job, and the run that the scripts share."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ltx.config import UserError, recipe_suffix
from ltx.main.common.devices import speed_up
from ltx.main.common.memory import AUTO, SideBySide, measure_slot
from ltx.main.common.progress import display_path
from ltx.main.runs.build_images import images_of
from ltx.main.runs.build_models import (
    RANDOMISED_EXPLAINEE,
    explainer_name,
    explainer_path,
    model_to_explain,
    pretrained_explainer,
    settled,
    with_explainer_named,
)
from ltx.main.runs.mask_job import MaskJob
from ltx.main.runs.method import Batch, Maps, Method
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.checkpoints import load_state, weights_sha256
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.losses import Objective
from ltx.models.published import training_state
from ltx.models.registry import pair_folder

log = logging.getLogger(__name__)

# The released finetuning continues the schedule of pretraining as if it were this long, with this peak.
RELEASED_PEAK, _RELEASED_STEPS = 2e-3, 250_000


def run_ltx(options, evaluation: type, score: Callable[[Any], dict]) -> tuple[Path, dict, dict]:
    """Make LTX masks (pLTX masks with `RUN_BASE_MODEL`) and, unless told not to, score them.

    Args:
        options: `LtxOptions` with images.
        evaluation: dataclass of the evaluation's options.
        score: from these options to the closing results.

    Returns:
        The run folder, the results, and how many images were left out.

    Raises:
        UserError: no images, no weights, no pLTX explainer, another run in the folder, ...
    """
    options, images = with_explainer_named(options), images_of(options)
    explainer_path(options)  # before the explainee's weights are looked for
    job = MaskJob.open(options, images, default_run_name)
    job.fill(ltx_method(job))
    print(f"masks: {display_path(job.folder)}")
    return job.evaluate(evaluation, score)


def ltx_method(job: MaskJob) -> Method:
    """LTX, or pLTX with `RUN_BASE_MODEL`, as a job's `LtxOptions` say.

    Raises:
        UserError: no pLTX explainer, or options that make no sense.
    """
    explainee = job.explainee
    explainer, path, metadata = pretrained_explainer(job.options, explainee)
    options = settled(job.options, explainer.to(job.device))
    print(f"pLTX explainer: {path}")
    settings, loss = finetune_settings(options, explainer, path), Objective.from_options(options)
    sha256 = weights_sha256(explainer)
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
    record = {
        "explainer": {"name": explainer.name, "checkpoint": str(path), "sha256": sha256} | metadata,
        "candidates": candidates(options),
    }
    if options.RUN_BASE_MODEL:
        return Method("pltx", pltx_maps(explainer), {"explainer": sha256}, record, options)
    at_most = min(len(job.chosen), job.unit_size)
    memory = measure_slot(explainer, explained, loss, settings.select, settings.kink_width)
    side_by_side = SideBySide(options.batch_size, memory, job.device, at_most)
    maps = FinetunedMaps(explainer, explained, loss, settings, side_by_side)
    return Method("ltx", maps, {"explainer": sha256}, record, options)


def pltx_maps(explainer: Explainer) -> Callable[[Batch], Maps]:
    """Masks by one forward pass."""

    def maps(batch: Batch) -> Maps:
        masks = pltx(explainer, batch.images, batch.classes)
        batch.progress(len(batch.images))
        return Maps(masks)

    return maps


@dataclasses.dataclass
class FinetunedMaps:
    """Masks by finetuning, as many images at once as fit in memory."""

    explainer: Explainer
    explainee: Explainee
    objective: Objective
    settings: Settings
    side_by_side: SideBySide

    def __call__(self, batch: Batch) -> Maps:
        masks, figures = self.side_by_side.run(lambda slots: self._finetune(batch, slots))
        return Maps(masks, {}, figures)

    def _finetune(self, batch: Batch, slots: int) -> tuple[dict, dict]:
        models, rows = (self.explainer, self.explainee), (batch.images, batch.classes, batch.scored)
        settings = dataclasses.replace(self.settings, slots=slots)
        return finetune(*models, *rows, self.objective, settings, batch.progress)


def default_run_name(options: FinetuneOptions, images_name: str) -> str:
    """Folder name from the pair, the class that is explained, the method and the recipe."""
    pair = pair_folder(explainer_name(options), options.explainee_model_name).name
    kind = "target" if options.train_model_by_target_gt_class else "predicted"
    method = ("pltx" if options.RUN_BASE_MODEL else "ltx") + recipe_suffix(options.recipe)
    return f"{images_name}-{pair}-{kind}-{method}{'-randomised' if options.randomise_weights else ''}"


def candidates(options: FinetuneOptions) -> dict[str, int]:
    """Number of masks that each variant was chosen from; `best_loss` by the loss, not by a metric."""
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
    options = settled(options, explainer)
    batch_size = 1 if options.batch_size == AUTO else int(options.batch_size)
    if options.n_epochs_to_optimize_stage_b < 1 or batch_size < 1 or options.unit_size < 1:
        raise UserError("--n_epochs_to_optimize_stage_b, --batch-size and --unit-size must be at least 1")
    if options.lr is not None and options.finetune_lr != "released":
        log.warning("--lr has no effect without --finetune-lr released; the constant rate is --finetune-lr")
    if options.early_stop and not options.select_best:
        raise UserError("--early-stop True stops by the scores that --select-best False leaves out")
    if options.kink_width < 0:
        raise UserError(f"--kink-width {options.kink_width:g}: must be at least 0")
    if options.finetune_decay and options.finetune_lr == "released":
        raise UserError("--finetune-lr released continues a schedule; pass --finetune-decay False, or a rate")
    schedule, moments, lr = None, None, 0.0
    if options.finetune_lr == "released" and not options.RUN_BASE_MODEL:
        schedule, moments = _released(checkpoint, explainer, options.lr or RELEASED_PEAK)
    elif not options.RUN_BASE_MODEL:
        lr = float(options.finetune_lr)
    return Settings(
        n_steps=options.n_epochs_to_optimize_stage_b,
        lr=lr,
        decay=options.finetune_decay,
        kink_width=options.kink_width,
        optimize_by_pos=options.optimize_by_pos,
        early_stop=options.early_stop,
        slots=batch_size,
        schedule=schedule,
        moments=moments,
        select=options.select_best,
    )


def _released(checkpoint: Path, explainer: Explainer, peak: float):
    """Rate by update and AdamW state, as the released code continues a checkpoint."""
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
    moments: dict[str, Any] = {
        key: {name: entry[key].to(device) for name, entry in by_name.items()}
        for key in ("exp_avg", "exp_avg_sq")
    }
    moments["step"] = float(next(iter(by_name.values()))["step"])
    stored, step = optimizer["param_groups"][0]["lr"], state["global_step"]

    def schedule(update: int) -> float:
        return stored if update == 0 else peak * (step + update) / _RELEASED_STEPS

    print(f"finetuning rate: first update {schedule(0):.3g} (stored), then from {schedule(1):.3g}")
    return schedule, moments
