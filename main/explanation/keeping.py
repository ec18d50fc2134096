"""The smallest part of an image that keeps the class: a threshold of its map."""

import numpy as np
import torch
from torch import Tensor

from ltx.models.explainee import Explainee, read_class
from ltx.models.masking import apply_mask

AREAS = tuple(float(area) for area in np.geomspace(0.01, 1, 16))  # shares of the image that are tried


@torch.no_grad()
def keeping_levels(explainee: Explainee, image: Tensor, maps: Tensor, classes: Tensor) -> list[float]:
    """Return for each of N maps the level at and above which its pixels, the rest black, keep the class.

    The class is kept if it is still predicted; one that is not predicted on the image itself, if it is no
    less probable than there. Of the areas tried, the smallest counts; the whole image always keeps it.

    Args:
        explainee: on its device.
        image: (3, H, W) in [0, 1].
        maps: (N, H, W) in [0, 1].
        classes: (N,).
    """
    device = explainee.mean.device
    found = []
    for saliency, label in zip(maps.to(device), classes.tolist(), strict=True):
        ordered = saliency.flatten().sort(descending=True).values
        last = torch.tensor([round(area * ordered.numel()) - 1 for area in AREAS], device=device)
        levels = ordered[last.clamp(min=0)]
        masks = (saliency >= levels[:, None, None]).to(image.dtype)
        images = apply_mask(image.to(device).expand(len(levels), -1, -1, -1), masks[:, None])
        probability, predicted = read_class(explainee, images, torch.full_like(last, label))
        kept = predicted > 0 if predicted[-1] > 0 else probability >= probability[-1]
        found.append(float(levels[kept.nonzero()[0, 0]]))
    return found
