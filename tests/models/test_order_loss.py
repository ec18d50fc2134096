"""Cuts of a map at sampled sizes: which pixels, in which order, with which gradient."""

import numpy as np
import torch

from ltx.models.losses import LARGEST, SMALLEST, cut, sampled_shares


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
    values = np.log(maps.numpy().ravel() / (1 - maps.numpy().ravel()))
    level, width = np.sort(values)[::-1][8], 0.2 * values.std()
    soft = 1 / (1 + np.exp(-(values - level) / width))
    np.testing.assert_allclose(masks.numpy().ravel(), soft, rtol=1e-7)


def test_level_and_contrast_neither_count_nor_get_a_gradient():
    maps = torch.rand(2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shares = torch.tensor([[0.1, 0.5, 0.9]]).expand(2, 3)
    logits = maps.logit()
    paler = (0.3 * logits - 2).sigmoid()
    torch.testing.assert_close(cut(paler, shares), cut(maps, shares), rtol=1e-6, atol=1e-9)
    logits.requires_grad_()
    (cut(logits.sigmoid(), shares) * weights).sum().backward()
    assert logits.grad.abs().max() > 0.02
    for direction in (torch.ones_like(maps), logits.detach()):
        along = (logits.grad * direction).sum((1, 2))
        torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-7)


def test_faint_pixels_are_ranked_like_others():
    """Of two halves, one kept and one not, the faint one is cut in two, though its values differ by 0.009."""
    maps = torch.cat([torch.linspace(0.8, 0.9, 50), torch.linspace(0.001, 0.01, 50)]).view(1, 10, 10)
    masks = cut(maps, torch.tensor([[0.75]]))
    assert masks[0, 0, :5].min() > 0.99  # the salient half stays whole
    faint = masks[0, 0, 5:].flatten()
    assert faint.diff().min() > 0 and faint.max() - faint.min() > 0.5


def test_values_of_zero_and_one_are_finite():
    maps = torch.tensor([[[0.0, 1.0], [0.5, 0.2]]], requires_grad=True)
    masks = cut(maps, torch.tensor([[0.5]]))
    masks[0, 0, 1].sum().backward()
    assert torch.isfinite(masks).all() and torch.isfinite(maps.grad).all()
    assert masks[0, 0, 0, 1] > masks[0, 0, 1, 0] > masks[0, 0, 1, 1] > masks[0, 0, 0, 0]


def test_a_constant_map_has_a_finite_gradient():
    maps = torch.full((1, 6, 6), 0.5, requires_grad=True)
    masks = cut(maps, torch.tensor([[0.25]]))
    assert (masks == 0.5).all()
    masks.mean().backward()
    assert torch.isfinite(maps.grad).all()
