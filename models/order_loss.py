"""Training the order of the pixels: what the explainee says at every size of the mask, not at one.

The objective of the paper shows the explainee one soft mask, so only the few pixels that this mask keeps are
ever ranked. Here the mask is also cut at sampled sizes: the most salient share of the pixels alone has to keep
the class, and the image without them has to lose it. The cut is hard in the forward pass, as it is wherever an
order of pixels is used, and soft in the backward pass (straight-through; Bengio et al. 2013).
"""

import torch
from torch import Tensor

SMALLEST, LARGEST = 0.05, 0.95  # shares of the pixels between which sizes are sampled
_SOFTNESS = 0.5  # width of the soft cut, in standard deviations of the map
# Fractional parts of multiples of the golden ratio spread evenly over [0, 1).
_GOLDEN = 0.6180339887498949


def sampled_shares(step: Tensor, n: int) -> Tensor:
    """Shares of the pixels (B, n) in [0.05, 0.95], one in each of n strata, always the same for a step.

    Args:
        step: (B,) steps of the training, from 0.
        n: sizes per step.
    """
    offset = torch.frac((step + 1).double() * _GOLDEN)[:, None]
    strata = torch.arange(n, device=step.device, dtype=torch.float64)
    return (SMALLEST + (LARGEST - SMALLEST) * (strata + offset) / n).float()


def cut(maps: Tensor, shares: Tensor) -> Tensor:
    """Masks (B, n, H, W): 1 on the most salient share of the pixels, 0 elsewhere; differentiable in the maps.

    Equally salient pixels go in the order of their index, as in `main.perturbation_eval.curves`.

    Args:
        maps: (B, H, W).
        shares: (B, n) in [0, 1].
    """
    flat = maps.flatten(1)
    n_pixels = flat.shape[1]
    values, order = torch.sort(flat.detach(), dim=1, descending=True, stable=True)
    counts = (shares * n_pixels).round().long().clamp(1, n_pixels - 1)
    ranks = torch.empty_like(order).scatter_(
        1, order, torch.arange(n_pixels, device=maps.device).expand_as(order)
    )
    hard = (ranks[:, None] < counts[..., None]).to(flat.dtype)
    level = values.gather(1, counts)[..., None]
    width = _SOFTNESS * flat.detach().std(1).clamp(min=torch.finfo(flat.dtype).eps)[:, None, None]
    soft = torch.sigmoid((flat[:, None] - level) / width)
    return (hard + (soft - soft.detach())).unflatten(2, maps.shape[1:])
