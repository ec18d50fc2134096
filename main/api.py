"""LTX from Python, for any classifier.

`Explainee.from_module`, `Explainer.from_name` or `read_explainer`, and `explain`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ltx.config import RELEASED, UserError
from ltx.main.common.recipes import recipe_values, usual_values
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.main.seg_classification.options import LtxOptions
from ltx.models.explainee import Explainee, read_class
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import read_explainer
from ltx.models.losses import Objective
from ltx.models.masking import apply_mask, upsample

__all__ = [
    "FRESH", "TRAINED", "Defaults", "Explainee", "Explainer", "Explanation", "Objective", "defaults_of",
    "explain", "read_explainer",
]  # fmt: skip


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
        target: int64 (B,), the class that is explained.
        token_masks: (B, h, w) in [0, 1], 1 where the class lies.
        saliency: (B, H, W) in [0, 1], the token masks at the size of the images that were given.
        scores: by name, (B,) in [0, 1]. `probability` of the class on the image, `masked_probability` on the
            image times the map, `complement_probability` on the image times one minus the map, and
            `mask_area`, the share of the image that the map keeps.
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


def explain(
    explainer: Explainer,
    explainee: Explainee,
    images: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    steps: int | None = None,
    lr: float | None = None,
    objective: Objective | None = None,
    variant: str | None = None,
    batch_size: int = 16,
    progress: Callable[[int], None] = lambda done: None,
) -> Explanation:
    """Explains what an explainee sees in images.

    Args:
        explainer: makes the masks; its weights are not changed.
        explainee: the classifier.
        images: (B, 3, H, W), floating in [0, 1] or uint8, of any size: they are resized to the explainee's.
        target: class to explain, one for all images or one each (default: the top class of each).
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
        UserError: images, target, steps or variant that make no sense.
    """
    defaults = defaults_of(explainer)
    if steps is None:
        steps = default_steps(explainer, target is not None)
    if steps < 0:
        raise UserError(f"steps must be 0 or more, not {steps}")
    if explainer.class_conditional and explainer.condition.num_classes != explainee.num_classes:
        raise UserError(
            f"the explainer knows {explainer.condition.num_classes} classes and '{explainee.name}' has "
            f"{explainee.num_classes}"
        )
    pixels = _prepared(images, explainee.input_size).to(explainee.mean.device)
    classes = _classes(target, explainee, pixels, batch_size)
    if steps:
        lr = defaults.lr if lr is None else lr
        settings = Settings(n_steps=steps, lr=lr, slots=batch_size, select=variant == "best_pos")
        objective = objective or defaults.objective
        masks, figures = finetune(
            explainer, explainee, pixels, classes, classes, objective, settings, progress
        )
    else:
        masks, figures = pltx(explainer, pixels, classes, batch_size), {}
        progress(len(pixels))
    variant = variant or ("last" if steps else "pltx")
    if variant not in masks:
        raise UserError(f"no variant '{variant}'; with {steps} steps there are {', '.join(masks)}")
    shown = masks[variant]
    saliency = upsample(shown, tuple(images.shape[-2:]))
    scores = score(explainee, pixels, classes, shown, batch_size)
    return Explanation(classes, shown, saliency, scores, variant, masks, figures)


@torch.no_grad()
def score(
    explainee: Explainee, images: Tensor, classes: Tensor, token_masks: Tensor, batch_size: int = 16
) -> dict[str, Tensor]:
    """`Explanation.scores` of token masks (B, h, w) over images (B, 3, H, W) for classes (B,)."""
    maps = upsample(token_masks, images.shape[-2:])[:, None]
    shown = {
        "probability": images,
        "masked_probability": apply_mask(images, maps),
        "complement_probability": apply_mask(images, 1 - maps),
    }
    scores = {
        name: torch.cat(
            [
                read_class(explainee, *part)[0]
                for part in zip(pixels.split(batch_size), classes.split(batch_size), strict=True)
            ]
        )
        for name, pixels in shown.items()
    }
    return scores | {"mask_area": maps.mean((1, 2, 3))}


def _prepared(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, 3, H, W) as float32 in [0, 1] at the explainee's size (bilinear, antialiased)."""
    if images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise UserError(f"images are {tuple(images.shape)}; wanted (B, 3, H, W)")
    if images.dtype == torch.uint8:
        images = images.float() / 255
    images = images.float()
    if not (images.min() >= 0 and images.max() <= 1):
        raise UserError("images must lie in [0, 1]: the explainee normalises them itself")
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return TF.resize(images, list(size), antialias=True).clamp(0, 1)


def _classes(target, explainee: Explainee, images: Tensor, batch_size: int) -> Tensor:
    """Class (B,) to explain in each image."""
    if target is None:
        with torch.no_grad():
            return torch.cat([explainee(part).argmax(1) for part in images.split(batch_size)])
    classes = torch.as_tensor(target, device=images.device, dtype=torch.long)
    classes = classes.expand(len(images)) if classes.dim() == 0 else classes
    if classes.shape != (len(images),):
        raise UserError(f"target has shape {tuple(classes.shape)} for {len(images)} images; wanted one each")
    wrong = next((c for c in classes.tolist() if not 0 <= c < explainee.num_classes), None)
    if wrong is not None:
        raise UserError(f"target {wrong} is outside the classes 0 ... {explainee.num_classes - 1}")
    return classes
