"""Training the order of the pixels: what the explainee says at every size of the mask, not at one.

The objective of the paper shows the explainee one soft mask, so only the few pixels that this mask keeps are
ever ranked. Here the mask is also cut at sampled sizes: the most salient share of the pixels alone has to
keep the class, and the image without them has to lose it. The cut is a steep sigmoid around the share's
quantile: a hard one would make results depend on rounding, and so on how many images run side by side.
"""

import torch
from torch import Tensor

SMALLEST, LARGEST = 0.05, 0.95  # shares of the pixels between which sizes are sampled
_SOFTNESS = 0.2  # width of the cut, in standard deviations of the map
_TINY = 1e-12  # keeps constant maps finite
_EDGE = 1e-5  # values nearer to 0 or 1 count as so near
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
    """Masks (B, n, H, W) in (0, 1): near 1 on the most salient share of the pixels, near 0 elsewhere.

    Only the order counts, so it is the values' logits that are cut: where a mask keeps nearly nothing, or
    nearly all, its pixels differ by little and are ranked all the same. They are standardised first,
    gradients and all, since each pixel alone would gain by any rise. The value at which a standardised map is
    cut counts as a constant in the backward pass.

    Args:
        maps: (B, H, W) in [0, 1].
        shares: (B, n) in [0, 1].
    """
    flat = maps.flatten(1).logit(_EDGE)
    flat = flat - flat.mean(1, keepdim=True)
    flat = flat / flat.square().mean(1, keepdim=True).add(_TINY).sqrt()
    n_pixels = flat.shape[1]
    values = flat.detach().sort(dim=1, descending=True).values
    counts = (shares * n_pixels).round().long().clamp(1, n_pixels - 1)
    level = values.gather(1, counts)[..., None]
    return torch.sigmoid((flat[:, None] - level) / _SOFTNESS).unflatten(2, maps.shape[1:])
