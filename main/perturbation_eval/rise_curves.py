"""RISE's deletion and insertion curves (Petsiuk et al. 2018): a row's worth of pixels at a time."""

from functools import cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.models.explainee import read_class
from ltx.models.masking import fill_of

_WIDTH, _SIGMA = 11, 5


def rise_curve(view: MapView, insert: bool) -> Tensor:
    """Return the probability of the top class (B, H + 1) after 0, W, ..., H*W pixels, most salient first.

    Equally salient pixels go in the order of their index. The class is the top one of the unmasked image,
    whatever class is scored elsewhere. Deletion ends in the fill (black), insertion begins with the image
    under RISE's blur.

    Args:
        view: images and maps.
        insert: put pixels back into the blurred image, else delete them from the image.
    """
    n, h, w = view.saliency.shape
    order = torch.sort(-view.saliency.flatten(1), dim=1, stable=True).indices
    place = torch.arange(h * w, device=order.device).expand(n, -1)
    row_of = torch.empty_like(order).scatter_(1, order, place // w)
    batch = view.batch
    if insert:
        before, after = batch.once("blurred", lambda: rise_blur(batch)), batch.images
    else:
        before, fill = batch.images, fill_of(batch.images, batch.fill)
        after = fill if isinstance(fill, Tensor) else torch.full_like(batch.images, fill)
    top = batch.once("top", lambda: _top_class(batch))
    which = torch.arange(n, device=order.device).repeat_interleave(h + 1)
    step = torch.arange(h + 1, device=order.device).repeat(n)
    found = []
    for rows, steps in zip(which.split(batch.batch_size), step.split(batch.batch_size), strict=True):
        changed = (row_of[rows] < steps[:, None]).view(len(rows), 1, h, w)
        pixels = torch.where(changed, after[rows], before[rows])
        found.append(read_class(batch.explainee, pixels, top[rows])[0])
    return torch.cat(found).view(n, h + 1)


def rise_auc(curve: Tensor) -> Tensor:
    """Return the area under curves (B, K) over the unit interval: (B,) in [0, 1]."""
    return torch.trapezoid(curve.double(), dx=1 / (curve.shape[1] - 1), dim=1)


def rise_blur(batch: ImageBatch) -> Tensor:
    """Return the images under RISE's kernel; the model's mean colour, 0 once normalised, pads them."""
    images = batch.images
    mean = getattr(batch.explainee, "mean", torch.zeros(1, 3, 1, 1)).to(images)
    kernel = _kernel().to(images).expand(3, 1, -1, -1)
    return F.conv2d(images - mean, kernel, padding=_WIDTH // 2, groups=3) + mean


@cache
def _kernel() -> Tensor:
    """Return (1, 1, 11, 11): a unit impulse under SciPy's Gaussian filter, mirrored as in RISE's code."""
    impulse = np.zeros((_WIDTH, _WIDTH))
    impulse[_WIDTH // 2, _WIDTH // 2] = 1
    return torch.from_numpy(gaussian_filter(impulse, _SIGMA)).float()[None, None]


@torch.no_grad()
def _top_class(batch: ImageBatch) -> Tensor:
    return torch.cat([batch.explainee(images).argmax(1) for images in batch.images.split(batch.batch_size)])
