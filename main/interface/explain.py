"""`explain`: images and a question to masks, with the defaults of each explainer."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from ltx.config import RELEASED, UserError
from ltx.main.common.recipes import recipe_values, usual_values
from ltx.main.interface.pixels import as_images, seen_part, to_size
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.main.seg_classification.options import LtxOptions
from ltx.models.explainee import Explainee, read_class
from ltx.models.explainer import Explainer
from ltx.models.function_target import FunctionTarget
from ltx.models.losses import Objective
from ltx.models.masking import apply_mask, upsample
from ltx.models.ownership import warn_of_stranger
from ltx.models.sharing import shared_copy

log = logging.getLogger(__name__)

NO_CLASS = -1  # where a function is explained


@dataclass(frozen=True)
class Defaults:
    """What `explain` does unless it is told otherwise.

    Attributes:
        steps: masks per image.
        lr: constant learning rate of the finetuning.
        objective: the loss.
    """

    steps: int
    lr: float
    objective: Objective


# From pLTX weights: the paper's finetuning. From a backbone with a fresh head: more and larger steps and a
# lighter mask loss (at 50 the mask goes black).
_STEPS, _RATE = (
    LtxOptions.n_epochs_to_optimize_stage_b,
    recipe_values(RELEASED, "finetuning", "")["finetune_lr"],
)
TRAINED = Defaults(_STEPS, _RATE, Objective())
FRESH = Defaults(50, 5e-4, Objective(mask_loss_mul=10.0))


@dataclass(frozen=True)
class Explanation:
    """Explanations of a batch of B images.

    Attributes:
        target: int64 (B,), the class that is explained; -1 where it is a function.
        token_masks: (B, h, w) in [0, 1], 1 where the class lies.
        saliency: (B, H, W) in [0, 1], the token masks at the size of the images that were given.
        scores: by name, (B,) in [0, 1]. `probability` of the class on the image, `masked_probability` on the
            image times the map, `complement_probability` on the image times one minus the map, and
            `mask_area`, the share of the image that the map keeps. Where a function is explained, `score`,
            `masked_score` and `complement_score` are its own values, of any scale.
        variant: which of `variants` the masks are.
        variants: every mask that was kept, (B, h, w): `pltx` (before the first step) and, with steps, `last`,
            `best_loss` and, where it is shown, `best_pos`.
        figures: `loss` (B, steps) of each step and `steps` (B,), with `best_pos` also `pos_auc` and
            `best_step`; empty without steps.
    """

    target: Tensor
    token_masks: Tensor
    saliency: Tensor
    scores: dict[str, Tensor]
    variant: str
    variants: dict[str, Tensor]
    figures: dict[str, Tensor]


def defaults_of(explainer: Explainer, recipe: str | None = None) -> Defaults:
    """Return `FRESH` for an explainer that was never trained, else the recipe's values.

    What the recipe leaves open is as in the explainer's training, then as in `TRAINED`.

    Args:
        explainer: makes the masks.
        recipe: default: the one that the explainer was pretrained with.

    Raises:
        UserError: no such recipe.
    """
    if not explainer.is_trained:
        return FRESH

    def kind_of(_: str) -> str:
        return "tokens" if explainer.has_tokens else "feature_map"

    values = usual_values("finetuning", recipe, explainer.metadata, explainer.name, kind_of=kind_of)
    return Defaults(TRAINED.steps, values["finetune_lr"], Objective.from_options(SimpleNamespace(**values)))


def default_steps(explainer: Explainer, has_target: bool, recipe: str | None = None) -> int:
    """Masks per image where nothing else is said.

    None from a trained explainer, whose forward pass answers; but unless it is class-conditional that pass
    knows nothing of a target, so with one the steps of `TRAINED`. Those of `FRESH` if it was never trained.
    """
    answers = explainer.class_conditional or not has_target
    return 0 if explainer.is_trained and answers else defaults_of(explainer, recipe).steps


@torch.inference_mode(False)
@torch.enable_grad()
def explain(
    explainer: Explainer,
    explainee: Explainee,
    images: Tensor,
    target: int | Sequence[int] | Tensor | Callable | None = None,
    steps: int | None = None,
    lr: float | None = None,
    objective: Objective | None = None,
    variant: str | None = None,
    batch_size: int = 16,
    progress: Callable[[int], None] = lambda done: None,
) -> Explanation:
    """Explains what an explainee sees in images; several threads may share both models.

    Args:
        explainer: makes the masks; it is not changed. One on another device than the explainee is copied.
        explainee: the classifier.
        images: (B, C, H, W), floating in [0, 1] or uint8, of any size: they are resized to the explainee's.
            Also one image, Pillow images, or a NumPy array, see `main.interface.pixels.as_images`.
        target: class to explain, one for all images or one each (default: the top class of each); or a
            function from the module's output to one score per image, of any scale, see
            `models.function_target`.
        steps: masks per image, the first before any update; 0 for one forward pass (default: see
            `default_steps`).
        lr: learning rate of the steps (default: see `defaults_of`).
        objective: loss of the steps (default: likewise).
        variant: the mask to show: `pltx`, `last`, `best_loss`, or `best_pos`, the step with the lowest POS,
            which only tells steps apart where the class is the top one, and takes a few times longer
            (default: `last`; `pltx` without steps).
        batch_size: images side by side; changes memory and speed only.
        progress: called with the number of images that have just been finished.

    Returns:
        The explanations, on the explainee's device.

    Raises:
        UserError: images, target, steps or variant that make no sense, models that do not fit together, or
            an explainee that gives NaN.
    """
    defaults = defaults_of(explainer)
    if steps is None:
        steps = default_steps(explainer, target is not None)
    if steps < 0:
        raise UserError(f"steps must be 0 or more, not {steps}")
    _check_pair(explainer, explainee, target)
    device = explainee.mean.device
    if explainer.class_conditional or explainer.mean.device != device:  # the class enters through a hook
        explainer = shared_copy(explainer).to(device)
    whole = as_images(images, explainee.channels).to(device)
    pixels = to_size(whole, explainee.input_size)
    objective = objective or defaults.objective
    asked: Explainee | FunctionTarget = explainee
    classes = torch.arange(len(pixels), device=device)
    if callable(target):
        if variant == "best_pos":
            raise UserError("variant 'best_pos' needs a class; with a function as target choose 'best_loss'")
        asked = FunctionTarget(explainee, target, pixels, objective.fill, batch_size)
    else:
        classes = _classes(target, explainee, pixels, batch_size)
    if steps:
        lr = defaults.lr if lr is None else lr
        settings = Settings(n_steps=steps, lr=lr, slots=batch_size, select=variant == "best_pos")
        masks, figures = finetune(explainer, asked, pixels, classes, classes, objective, settings, progress)
    else:
        masks, figures = pltx(explainer, pixels, classes, batch_size), {}
        progress(len(pixels))
    variant = variant or ("last" if steps else "pltx")
    if variant not in masks:
        raise UserError(f"no variant '{variant}'; with {steps} steps there are {', '.join(masks)}")
    shown = masks[variant]
    rows, columns = seen_part(tuple(whole.shape[-2:]), explainee.input_size)
    saliency = torch.zeros_like(whole[:, 0])
    seen = saliency[:, rows, columns]
    seen.copy_(upsample(shown, tuple(seen.shape[-2:])))
    if callable(target):
        classes = torch.full_like(classes, NO_CLASS)
    scores = score(asked, pixels, classes, shown, batch_size)
    return Explanation(classes, shown, saliency, scores, variant, masks, figures)


def _check_pair(explainer: Explainer, explainee: Explainee, target) -> None:
    """Raises `UserError` where two models do not fit together; warns where one was trained for another."""
    if explainer.class_conditional and callable(target):
        raise UserError("a class-conditional explainer is asked about classes; a function is none")
    if explainer.class_conditional and explainer.condition.num_classes != explainee.num_classes:
        raise UserError(
            f"the explainer knows {explainer.condition.num_classes} classes and '{explainee.name}' has "
            f"{explainee.num_classes}"
        )
    rgb = (1, 3)
    if explainer.channels != explainee.channels and not {explainer.channels, explainee.channels} <= set(rgb):
        raise UserError(
            f"the explainer takes {explainer.channels} channels and '{explainee.name}' {explainee.channels}; "
            f"make one with Explainer.from_name('{explainer.name}', explainee)"
        )
    warn_of_stranger(explainer, explainee)


@torch.no_grad()
def score(
    explainee: Explainee, images: Tensor, classes: Tensor, token_masks: Tensor, batch_size: int = 16
) -> dict[str, Tensor]:
    """`Explanation.scores` of token masks (B, h, w) over images (B, C, H, W) for classes (B,)."""
    maps = upsample(token_masks, tuple(images.shape[-2:]))[:, None]
    shown = {"": images, "masked_": apply_mask(images, maps), "complement_": apply_mask(images, 1 - maps)}
    what = "score" if isinstance(explainee, FunctionTarget) else "probability"
    scores = {}
    for name, pixels in shown.items():
        parts = zip(pixels.split(batch_size), classes.split(batch_size), strict=True)
        if isinstance(explainee, FunctionTarget):
            values = [explainee.scores(part) for part, _ in parts]
        else:
            values = [read_class(explainee, *part)[0] for part in parts]
        scores[name + what] = torch.cat(values)
    return scores | {"mask_area": maps.mean((1, 2, 3))}


@torch.no_grad()
def _classes(target, explainee: Explainee, images: Tensor, batch_size: int) -> Tensor:
    """Class (B,) to explain in each image."""
    logits = torch.cat([explainee(part) for part in images.split(batch_size)])
    bad = (~logits.isfinite().all(1)).nonzero().flatten().tolist()
    if len(bad) == len(images):
        raise UserError(f"'{explainee.name}' gives NaN or infinite values for these images")
    if bad:
        log.warning(
            "'%s' gives NaN or infinite values for image %s", explainee.name, ", ".join(map(str, bad))
        )
    if target is None:
        return logits.argmax(1)
    try:
        classes = torch.as_tensor(target, device=images.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"target {target!r:.60}: wanted a class, one per image, or a function") from error
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise UserError(f"target holds {classes.dtype} values; wanted whole numbers, classes")
    classes = classes.long().expand(len(images)) if classes.dim() == 0 else classes.long()
    if classes.shape != (len(images),):
        raise UserError(f"target has shape {tuple(classes.shape)} for {len(images)} images; wanted one each")
    wrong = next((c for c in classes.tolist() if not 0 <= c < logits.shape[1]), None)
    if wrong is not None:
        raise UserError(f"target {wrong} is outside the classes 0 ... {logits.shape[1] - 1}")
    return classes
