"""`explain`: images and a question to masks, with the defaults of each explainer."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.main.interface.defaults import Defaults, default_steps, defaults_of
from ltx.main.interface.pixels import as_images, seen_part, to_size
from ltx.main.interface.search import Search, try_again
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.function_target import FunctionTarget
from ltx.models.losses import Objective
from ltx.models.masking import upsample
from ltx.models.ownership import warn_of_stranger
from ltx.models.sharing import shared_copy

log = logging.getLogger(__name__)

NO_CLASS = -1  # where a function is explained


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
        warnings: of each image, why its explanation looks failed, see `main.interface.verdict`; mostly none.
    """

    target: Tensor
    token_masks: Tensor
    saliency: Tensor
    scores: dict[str, Tensor]
    variant: str
    variants: dict[str, Tensor]
    figures: dict[str, Tensor]
    warnings: list[list[str]] = field(default_factory=list)


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
            `default_steps`). An image whose explanation failed after them gets as many from a free mask.
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
    usual = defaults_of(explainer)
    if steps is None:
        steps = default_steps(explainer, target is not None)
    how = replace(
        usual, steps=steps, objective=objective or usual.objective, lr=usual.lr if lr is None else lr
    )
    return explain_as(explainer, explainee, images, target, how, variant, batch_size, progress)


@torch.inference_mode(False)
@torch.enable_grad()
def explain_as(
    explainer: Explainer,
    explainee: Explainee,
    images: Tensor,
    target: int | Sequence[int] | Tensor | Callable | None,
    how: Defaults,
    variant: str | None = None,
    batch_size: int = 16,
    progress: Callable[[int], None] = lambda done: None,
) -> Explanation:
    """`explain` with all settings given."""
    if how.steps < 0:
        raise UserError(f"steps must be 0 or more, not {how.steps}")
    _check_pair(explainer, explainee, target)
    device = explainee.mean.device
    if explainer.class_conditional or explainer.mean.device != device:  # the class enters through a hook
        explainer = shared_copy(explainer).to(device)
    whole = as_images(images, explainee.channels).to(device)
    pixels = to_size(whole, explainee.input_size)
    asked: Explainee | FunctionTarget = explainee
    classes = torch.arange(len(pixels), device=device)
    if callable(target):
        if variant == "best_pos":
            raise UserError("variant 'best_pos' needs a class; with a function as target choose 'best_loss'")
        asked = FunctionTarget(explainee, target, pixels, how.objective.fill, batch_size)
    else:
        classes = _classes(target, explainee, pixels, batch_size)
    search = Search(asked, how, variant or ("last" if how.steps else "pltx"), batch_size)
    found = search.run(explainer, pixels, classes, progress)
    if how.steps and search.variant != "pltx" and any(found.warnings):
        try_again(found, search, explainer, pixels, classes)
    rows, columns = seen_part(tuple(whole.shape[-2:]), explainee.input_size)
    saliency = torch.zeros_like(whole[:, 0])
    seen = saliency[:, rows, columns]
    shown = found.masks[search.variant]
    seen.copy_(upsample(shown, tuple(seen.shape[-2:])))
    if callable(target):
        classes = torch.full_like(classes, NO_CLASS)
    return Explanation(
        classes, shown, saliency, found.scores, search.variant, found.masks, found.figures, found.warnings
    )


def _check_pair(explainer: Explainer, explainee: Explainee, target) -> None:
    """Raise `UserError` where two models do not fit together; warns where one was trained for another."""
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
