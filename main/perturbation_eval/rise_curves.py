"""RISE's deletion and insertion curves (Petsiuk et al. 2018): a row's worth of pixels at a time."""

from functools import cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from ltx.main.perturbation_eval.map_view import MapView
from ltx.models.explainee import read_class
from ltx.models.masking import fill_of

_WIDTH, _SIGMA = 11, 5


def rise_curve(view: MapView, insert: bool) -> Tensor:
    """Probability of the top class (B, H + 1) after 0, W, 2W, ..., H*W pixels, the most salient first.

    Equally salient pixels go in the order of their index. The class is the top one of the unmasked image,
    whatever class is scored elsewhere. Deletion ends in `view.fill` (black), insertion begins with the image
    under RISE's blur.

    Args:
        view: images and maps.
        insert: put pixels back into the blurred image, else delete them from the image.
    """
    n, h, w = view.saliency.shape
    order = torch.sort(-view.saliency.flatten(1), dim=1, stable=True).indices
    place = torch.arange(h * w, device=order.device).expand(n, -1)
    row_of = torch.empty_like(order).scatter_(1, order, place // w)
    if insert:
        before, after = view.once_per_image_set("blurred", lambda: rise_blur(view)), view.images
    else:
        before = view.images
        fill = fill_of(view.images, view.fill)
        after = fill if isinstance(fill, Tensor) else torch.full_like(view.images, fill)
    top = view.once_per_image_set("top", lambda: _top_class(view))
    which = torch.arange(n, device=order.device).repeat_interleave(h + 1)
    step = torch.arange(h + 1, device=order.device).repeat(n)
    found = []
    for rows, steps in zip(which.split(view.batch_size), step.split(view.batch_size), strict=True):
        changed = (row_of[rows] < steps[:, None]).view(len(rows), 1, h, w)
        found.append(
            read_class(view.explainee, torch.where(changed, after[rows], before[rows]), top[rows])[0]
        )
    return torch.cat(found).view(n, h + 1)


def rise_auc(curve: Tensor) -> Tensor:
    """Trapezoid over the unit interval of curves (B, K): (B,) in [0, 1]."""
    return torch.trapezoid(curve.double(), dx=1 / (curve.shape[1] - 1), dim=1)


def rise_blur(view: MapView) -> Tensor:
    """Images under RISE's kernel; beyond the edge stands the model's mean colour, 0 once normalised."""
    images = view.images
    mean = getattr(view.explainee, "mean", None)
    mean = torch.zeros(1, 3, 1, 1) if mean is None else mean
    mean = mean.to(images)
    kernel = _kernel().to(images).expand(3, 1, -1, -1)
    return F.conv2d(images - mean, kernel, padding=_WIDTH // 2, groups=3) + mean


@cache
def _kernel() -> Tensor:
    """11x11: a unit impulse under SciPy's Gaussian filter, mirrored at the edge, as in RISE's code."""
    impulse = np.zeros((_WIDTH, _WIDTH))
    impulse[_WIDTH // 2, _WIDTH // 2] = 1
    return torch.from_numpy(gaussian_filter(impulse, _SIGMA)).float()[None, None]


@torch.no_grad()
def _top_class(view: MapView) -> Tensor:
    return torch.cat([view.explainee(part).argmax(1) for part in view.images.split(view.batch_size)])
