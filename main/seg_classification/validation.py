"""Figures of an epoch of pretraining: sums over its images, and what the validation measures."""

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.main.perturbation_eval.curves import auc, removal_curve
from ltx.main.seg_classification.class_queries import improbable_area
from ltx.models.explainee import Explainee, read_class
from ltx.models.explainer import Explainer
from ltx.models.losses import Objective
from ltx.models.masking import upsample

COUNTED = "counted"  # images behind the sums
_EMPTY, _FULL = 0.005, 0.95  # mean mask areas that tell nothing apart


def add_up(sums: dict[str, Tensor | float], figures: dict[str, Tensor], counting: Tensor) -> None:
    """Add figures (B,) of the images that count, and their number, to the sums."""
    # MPS has no float64.
    dtype = torch.float32 if counting.device.type == "mps" else torch.float64
    for name, values in (figures | {COUNTED: counting}).items():
        sums[name] = sums.get(name, 0.0) + (values.detach() * counting).sum(dtype=dtype)


def means(sums: dict[str, float], which: str) -> dict[str, float]:
    """Means over the images that were read.

    Raises:
        UserError: there were none.
    """
    if not sums.get(COUNTED):
        raise UserError(f"none of the {which} images can be read; --on-bad-image fail names the first")
    return {name: total / sums[COUNTED] for name, total in sums.items() if name != COUNTED}


def collapse(mask_area: float) -> str | None:
    """Return in words that masks of this mean area show nothing, and what to change; None where they may."""
    if not (mask_area < _EMPTY or mask_area > _FULL):
        return None
    kind, change = ("empty", "a lower") if mask_area < _EMPTY else ("full", "a higher")
    return (
        f"the explainer has collapsed: its masks are {kind} (mean area {mask_area:.3f}); pretrain it again "
        f"with {change} --mask-loss-mul, a lower --lr, or more images"
    )


@torch.no_grad()
def batch_figures(
    explainer: Explainer,
    explainee: Explainee,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    classes: Tensor,
    score_class: str,
) -> tuple[dict[str, Tensor], Tensor]:
    """Validation figures (B,) of a batch, and its maps (B, H, W).

    Args:
        explainer: makes the masks.
        explainee: the classifier.
        objective: the loss.
        images: (B, 3, H, W) in [0, 1].
        labels: (B,) true class, -1 for none.
        classes: (B,) class that each mask explains.
        score_class: class whose POS is measured: `explained`, `target`, else the predicted one.

    Returns:
        The losses, `mask_area`, `POS`, and for a class-conditional explainer `improbable_area`, that of the
        mask for the least likely class.
    """
    masks = explainer(images, classes)
    losses = objective(explainee, images, masks, classes)
    maps = upsample(masks, images.shape[-2:])[:, 0]
    scored = {"explained": classes, "target": labels}.get(score_class)
    scored = explainee(images).argmax(1) if scored is None else scored
    curve = removal_curve(explainee, images, maps, scored, True, read_class(explainee, images, scored))[1]
    figures = losses | {"mask_area": masks.mean((1, 2, 3)), "POS": auc(curve)}
    if explainer.class_conditional:
        figures["improbable_area"] = improbable_area(explainer, explainee, images)
    return figures, maps
