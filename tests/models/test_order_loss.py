"""Cuts of a map at sampled sizes: which pixels, in which order, with which gradient."""

import numpy as np
import torch

from main.perturbation_eval.curves import removal_steps
from models.order_loss import LARGEST, SMALLEST, cut, sampled_shares


def test_one_share_in_each_stratum_whatever_the_step():
    shares = sampled_shares(torch.arange(200), 4)
    where = (shares - SMALLEST) / (LARGEST - SMALLEST) * 4
    assert torch.equal(where.clamp(max=3.999).long(), torch.arange(4).expand(200, 4))


def test_shares_spread_evenly_over_the_steps():
    gaps = sampled_shares(torch.arange(25), 1)[:, 0].sort().values.diff()
    assert gaps.max() < 3 * (LARGEST - SMALLEST) / 25


def test_keeps_exactly_the_most_salient_pixels_ties_by_index():
    maps = torch.tensor(np.random.default_rng(0).integers(0, 4, (3, 10, 10))).float()  # many ties
    shares = torch.tensor([[0.1, 0.3, 0.9]]).expand(3, 3)
    masks = cut(maps, shares)
    steps = removal_steps(maps, most_salient_first=True).view(3, 10, 10)
    for k, step in enumerate((1, 3, 9)):
        assert torch.equal(masks[:, k], (steps <= step).float())


def test_the_gradient_is_that_of_the_soft_cut():
    maps = torch.rand(1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (cut(maps, torch.tensor([[0.5]])) * weights).sum().backward()
    values = maps.detach().numpy().ravel()
    level, width = np.sort(values)[::-1][8], 0.5 * values.std(ddof=1)
    soft = 1 / (1 + np.exp(-(values - level) / width))
    expected = soft * (1 - soft) / width * weights.numpy().ravel()
    np.testing.assert_allclose(maps.grad.numpy().ravel(), expected, rtol=1e-6)


def test_a_constant_map_has_a_finite_gradient():
    maps = torch.full((1, 6, 6), 0.5, requires_grad=True)
    masks = cut(maps, torch.tensor([[0.25]]))
    assert masks.sum() == 9
    masks.mean().backward()
    assert torch.isfinite(maps.grad).all()
