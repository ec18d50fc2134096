"""LTX's `best_pos` right for other methods: of several candidates, the map with the lowest POS is kept."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ltx.main.perturbation_eval.curves import auc, removal_curve
from ltx.models.explainee import Explainee, read_class

# Strongest smoothing, as a share of the shorter side.
_STRONGEST = 1 / 8


def smoothing_strengths(n_candidates: int, size: tuple[int, int]) -> list[float]:
    """Sigma in pixels of each candidate: evenly from 0 (the map itself) to an eighth of the shorter side."""
    strongest = min(size) * _STRONGEST
    return [strongest * k / max(n_candidates - 1, 1) for k in range(n_candidates)]


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Maps (B, H, W) under a Gaussian of `sigma` pixels."""
    if sigma == 0:
        return maps
    reach = min(max(1, round(3 * sigma)), min(maps.shape[-2:]) - 1)
    return TF.gaussian_blur(maps[:, None], [2 * reach + 1] * 2, [sigma] * 2)[:, 0]


def best_of(
    explainee: Explainee, images: Tensor, maps: Tensor, scored: Tensor, n_candidates: int
) -> tuple[Tensor, Tensor]:
    """The candidate of each image with the lowest POS; of equal ones the least smoothed.

    Args:
        explainee: images to logits.
        images: (B, 3, H, W) in [0, 1].
        maps: (B, H, W).
        scored: (B,) class that POS asks for.
        n_candidates: smoothing strengths, see `smoothing_strengths`.

    Returns:
        (B, H, W) and the candidate's number (B,).
    """
    best, chosen = maps.clone(), torch.zeros(len(maps), dtype=torch.long, device=maps.device)
    lowest = torch.full((len(maps),), torch.inf, dtype=torch.float64, device=maps.device)
    unmasked = read_class(explainee, images, scored)
    for k, sigma in enumerate(smoothing_strengths(n_candidates, tuple(maps.shape[-2:]))):
        candidate = smooth(maps, sigma)
        pos = auc(removal_curve(explainee, images, candidate, scored, True, unmasked)[1])
        better = pos < lowest - 1e-9
        lowest, chosen = torch.where(better, pos, lowest), torch.where(better, k, chosen)
        best = torch.where(better[:, None, None], candidate, best)
    return best, chosen
