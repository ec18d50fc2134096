"""Cuts of a map at sampled sizes: which pixels, in which order, with which gradient."""

import numpy as np
import torch

from models.order_loss import LARGEST, SMALLEST, cut, sampled_shares


def test_one_share_in_each_stratum_whatever_the_step():
    shares = sampled_shares(torch.arange(200), 4)
    where = (shares - SMALLEST) / (LARGEST - SMALLEST) * 4
    assert torch.equal(where.clamp(max=3.999).long(), torch.arange(4).expand(200, 4))


def test_shares_spread_evenly_over_the_steps():
    gaps = sampled_shares(torch.arange(25), 1)[:, 0].sort().values.diff()
    assert gaps.max() < 3 * (LARGEST - SMALLEST) / 25


def test_most_of_the_mask_lies_on_the_most_salient_share():
    maps = torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(0))
    masks = cut(maps, torch.tensor([[0.1, 0.5, 0.9]]).expand(2, 3))
    for k, share in enumerate((0.1, 0.5, 0.9)):
        level = np.sort(maps.flatten(1).numpy(), axis=1)[:, ::-1][:, round(share * 400)]
        above = maps > torch.tensor(level.copy()).view(2, 1, 1)
        assert torch.equal(masks[:, k] > 0.5, above)
        torch.testing.assert_close(masks[:, k].mean((1, 2)), torch.full((2,), share), rtol=0, atol=0.05)


def test_formula():
    maps = torch.rand(1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masks = cut(maps, torch.tensor([[0.5]]))
    values = maps.numpy().ravel()
    level, width = np.sort(values)[::-1][8], 0.2 * values.std()
    soft = 1 / (1 + np.exp(-(values - level) / width))
    np.testing.assert_allclose(masks.numpy().ravel(), soft, rtol=1e-7)


def test_level_and_contrast_neither_count_nor_get_a_gradient():
    maps = torch.rand(2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shares = torch.tensor([[0.1, 0.5, 0.9]]).expand(2, 3)
    torch.testing.assert_close(cut(0.3 * maps + 0.2, shares), cut(maps, shares), rtol=1e-6, atol=1e-9)
    maps.requires_grad_()
    (cut(maps, shares) * weights).sum().backward()
    assert maps.grad.abs().max() > 0.1
    for direction in (torch.ones_like(maps), maps.detach()):
        along = (maps.grad * direction).sum((1, 2))
        torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-7)


def test_a_constant_map_has_a_finite_gradient():
    maps = torch.full((1, 6, 6), 0.5, requires_grad=True)
    masks = cut(maps, torch.tensor([[0.25]]))
    assert (masks == 0.5).all()
    masks.mean().backward()
    assert torch.isfinite(maps.grad).all()
