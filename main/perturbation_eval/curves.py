"""Removal curves: what the explainee still says while pixels are taken away in the order of a saliency map.

Steps 0, 0.1, ..., 0.9 of the pixels are filled (black by default) before normalisation, the most salient
first (POS, DEL) or the least salient first (NEG, INS). Equally salient pixels go in the order of their index,
so the result is the same on every device and for every batch size. This is the released LTX protocol.
"""

import torch
from torch import Tensor

from ltx.models.explainee import read_class
from ltx.models.masking import fill_of

N_STEPS = 10
HIGHEST_AUC = 90.0




def removal_counts(n_pixels: int) -> list[int]:
    """Pixels removed at each of the 10 steps: floor(step * n_pixels), in exact integers."""
    return [step * n_pixels // N_STEPS for step in range(N_STEPS)]


def removal_steps(saliency: Tensor, most_salient_first: bool) -> Tensor:
    """At which step each pixel goes: uint8 (B, H*W), from 1 to 9, or 10 if it is never removed.

    Args:
        saliency: (B, H, W).
        most_salient_first: POS's order, else NEG's.
    """
    flat = saliency.flatten(1)
    order = torch.sort(-flat if most_salient_first else flat, dim=1, stable=True).indices
    counts = removal_counts(flat.shape[1])
    by_rank = torch.full((flat.shape[1],), N_STEPS, dtype=torch.uint8, device=flat.device)
    for step in range(N_STEPS - 1, 0, -1):
        by_rank[: counts[step]] = step
    return torch.empty_like(order, dtype=torch.uint8).scatter_(1, order, by_rank.expand(len(flat), -1))


def remove(images: Tensor, steps: Tensor, step: Tensor, fill: str = "black") -> Tensor:
    """Images (B, 3, H, W) with the pixels gone that go at `step` (B,) or before; `steps` is (B, H*W)."""
    gone = (steps <= step[:, None]).view(len(images), 1, *images.shape[-2:])
    if fill == "black":
        return images.masked_fill(gone, 0.0)
    return torch.where(gone, fill_of(images, fill), images)


def removal_curve(
    explainee,
    images: Tensor,
    saliency: Tensor,
    classes: Tensor,
    most_salient_first: bool,
    unmasked: tuple[Tensor, Tensor],
    fill: str = "black",
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Both readings of one removal curve, at 10 steps.

    Args:
        explainee: images to logits.
        images: (B, 3, H, W) in [0, 1].
        saliency: (B, H, W).
        classes: (B,) the class that is followed.
        most_salient_first: POS's order, else NEG's.
        unmasked: probability and correctness at step 0, see `read_class`.
        fill: what stands where pixels are removed.
        batch_size: images that go through the explainee at once.

    Returns:
        Probability of the class (B, 10) in [0, 1], and 1.0 where it is the top one (B, 10).
    """
    steps = removal_steps(saliency, most_salient_first)
    n = len(images)
    which = torch.arange(n, device=images.device).repeat_interleave(N_STEPS - 1)
    step = torch.arange(1, N_STEPS, device=images.device, dtype=torch.uint8).repeat(n)
    readings = []
    for i in range(0, len(which), batch_size):
        rows = which[i : i + batch_size]
        perturbed = remove(images[rows], steps[rows], step[i : i + batch_size], fill)
        readings.append(read_class(explainee, perturbed, classes[rows]))
    probability, correct = (torch.cat(parts).view(n, N_STEPS - 1) for parts in zip(*readings, strict=True))
    return (
        torch.cat([unmasked[0][:, None], probability], 1),
        torch.cat([unmasked[1][:, None], correct], 1),
    )




def auc(curve: Tensor) -> Tensor:
    """Area under curves (..., 10) over 0 ... 0.9 by the trapezoid rule, times 100: at most 90."""
    return torch.trapezoid(curve.double(), dx=1 / N_STEPS, dim=-1) * 100
