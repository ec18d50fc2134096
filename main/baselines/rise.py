"""RISE (Petsiuk et al. 2018): the mean of random masks, each weighted by what the explainee says under it."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ltx.main.baselines.base import FORWARD_BATCH, Batch
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee, class_scores

_KEPT = 0.5


@torch.no_grad()
def rise(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Probability of the class times mask, averaged over `--rise-masks` masks.

    Each mask is a random grid of `--rise-grid` cells a side, half of them on, upsampled and shifted; the same
    masks for every image. What a mask removes turns into the model's mean colour, as in the authors' code,
    which multiplies normalised images.
    """
    device, multi_label = batch.images.device, getattr(explainee, "multi_label", False)
    maps = torch.zeros(len(batch.images), *batch.images.shape[-2:], device=device)
    for masks in random_masks(options.rise_masks, options.rise_grid, batch.images.shape[-2:], options.seed):
        masks = masks.to(device)
        for i, image in enumerate(batch.images):
            shown = masks[:, None]
            logits = explainee(image * shown + explainee.mean * (1 - shown)).float()
            weights = class_scores(logits, multi_label)[:, batch.classes[i]]
            maps[i] += torch.einsum("n,nhw->hw", weights, masks)
    return maps / (options.rise_masks * _KEPT)


def random_masks(n: int, grid: int, size: tuple[int, int], seed: int) -> Iterator[Tensor]:
    """Masks (at most `FORWARD_BATCH`, H, W) in [0, 1], `n` in all."""
    generator = torch.Generator().manual_seed(seed)
    cell = [math.ceil(side / grid) for side in size]
    upsampled = [(grid + 1) * side for side in cell]
    for start in range(0, n, FORWARD_BATCH):
        count = min(FORWARD_BATCH, n - start)
        on = (torch.rand(count, 1, grid, grid, generator=generator, device="cpu") < _KEPT).float()
        large = F.interpolate(on, upsampled, mode="bilinear", align_corners=False)[:, 0]
        top, left = (
            torch.randint(side, (count,), generator=generator, device="cpu").tolist() for side in cell
        )
        yield torch.stack(
            [large[i, top[i] : top[i] + size[0], left[i] : left[i] + size[1]] for i in range(count)]
        )
