"""Random views, read off an image whose pixels say where they lie."""

import pytest
import torch

from ltx.datasets.augment import crops_and_flips


def coordinates(height=40, width=60):
    """(1, 3, H, W): row and column of each pixel, from 0 to 1, and 1 everywhere."""
    rows = torch.linspace(0, 1, height)[:, None].expand(height, width)
    columns = torch.linspace(0, 1, width).expand(height, width)
    return torch.stack([rows, columns, torch.ones(height, width)])[None]


def test_views_are_crops_of_a_third_to_all_of_the_image_half_of_them_mirrored():
    mirrored, areas = [], []
    for seed in range(60):
        rows, columns, ones = crops_and_flips(coordinates(), [(seed, 1, 2)])[0]
        assert torch.allclose(ones, torch.ones_like(ones))
        inner = rows[4:-4], columns[:, 4:-4]  # edges are repeated by the filter
        down, across = inner[0].diff(dim=0), inner[1].diff(dim=1)
        assert (down - down.mean()).abs().max() < 0.01 and (across - across.mean()).abs().max() < 0.01
        assert rows.diff(dim=1).abs().max() < 1e-5 and columns.diff(dim=0).abs().max() < 1e-5  # no turning
        mirrored.append(bool(across.mean() < 0))
        areas.append(float(down.mean() * 39 * across.mean().abs() * 59))
    assert 0.3 < sum(mirrored) / 60 < 0.7
    assert min(areas) > 0.3 and max(areas) < 1.1 and max(areas) - min(areas) > 0.4


def test_the_seed_alone_decides():
    images = coordinates().repeat(3, 1, 1, 1)
    seeds = [(7, 0, 5), (7, 0, 6), (7, 0, 5)]
    state = torch.get_rng_state()
    views = crops_and_flips(images, seeds)
    assert torch.equal(torch.get_rng_state(), state)
    assert views.shape == images.shape and torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[1])
    assert torch.equal(views[1], crops_and_flips(images[:1], seeds[1:2])[0])


def test_one_seed_for_each_image():
    with pytest.raises(ValueError, match="shorter"):
        crops_and_flips(coordinates().repeat(2, 1, 1, 1), [(1, 2, 3)])
