"""The search for masks: steps from an explainer, their scores, and one more try where they failed."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.main.interface.defaults import FRESH, RETRY, Defaults
from ltx.main.interface.verdict import warnings_of
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.models.explainee import Explainee, read_class
from ltx.models.explainer import Explainer
from ltx.models.free_mask import FreeMask
from ltx.models.function_target import FunctionTarget
from ltx.models.masking import apply_mask, upsample

_COARSE = 7  # cells of a mask that is tried after a finer one


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


@dataclass(frozen=True)
class Found:
    """Masks of n images by variant, the figures of their steps, and scores and warnings of the one shown."""

    masks: dict[str, Tensor]
    figures: dict[str, Tensor]
    scores: dict[str, Tensor]
    warnings: list[list[str]]


@dataclass(frozen=True)
class Search:
    """Settings of the search for masks.

    Attributes:
        asked: the explainee, or a function of its output in its place.
        how: steps, rate and loss.
        variant: that is shown.
        batch_size: images side by side.
    """

    asked: Explainee | FunctionTarget
    how: Defaults
    variant: str
    batch_size: int

    def run(self, explainer: Explainer, pixels: Tensor, classes: Tensor, progress=lambda done: None) -> Found:
        """Masks of images (n, C, H, W) in [0, 1] for classes (n,)."""
        how, figures = self.how, {}
        if how.steps:
            best = self.variant == "best_pos"
            settings = Settings(
                how.steps, how.lr, how.decay, how.kink_width, slots=self.batch_size, select=best
            )
            masks, figures = finetune(
                explainer, self.asked, pixels, classes, classes, how.objective, settings, progress
            )
        else:
            masks = pltx(explainer, pixels, classes, self.batch_size)
            progress(len(pixels))
        if self.variant not in masks:
            raise UserError(
                f"no variant '{self.variant}'; with {how.steps} steps there are {', '.join(masks)}"
            )
        scores = score(self.asked, pixels, classes, masks[self.variant], self.batch_size)
        return Found(masks, figures, scores, warnings_of(scores, masks[self.variant]))


def try_again(found: Found, search: Search, explainer: Explainer, pixels: Tensor, classes: Tensor) -> None:
    """Explains failed images from a free mask, a coarser one after a free mask; in place where that succeeds.

    `pltx` stays, as it is the explainer's own.
    """
    failed = [i for i, warnings in enumerate(found.warnings) if warnings]
    was_free = isinstance(explainer, FreeMask)
    start = FreeMask(search.asked, _COARSE) if was_free else FreeMask(search.asked)
    how = replace(RETRY if was_free else FRESH, steps=search.how.steps)
    again = replace(search, how=how).run(start, pixels[failed], classes[failed])
    for row, i in enumerate(failed):
        if again.warnings[row]:
            continue
        found.warnings[i] = []
        for old, new in ((found.figures, again.figures), (found.scores, again.scores)):
            for name in old:
                old[name][i] = new[name][row]
        for name in found.masks.keys() - {"pltx"}:
            found.masks[name][i] = upsample(again.masks[name][row], tuple(found.masks[name].shape[-2:]))
