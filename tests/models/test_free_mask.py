"""A mask that is trained itself, for any explainee."""

import pytest
import torch
from torch import nn

from ltx.config import UserError
from ltx.main.api import FRESH, Explainee, FreeMask, defaults_of, explain
from ltx.tests.support.classifiers import MEAN, SIZE, STD, net


def own(module=None, size=SIZE, channels=3) -> Explainee:
    mean, std = MEAN[:1] * channels, STD[:1] * channels
    return Explainee.from_module(module or net(channels=channels), mean, std, size)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((224, 224), (14, 14)), ((96, 160), (14, 23)), ((32, 32), (14, 14)), ((8, 24), (8, 24))],
)
def test_cells_are_square_and_start_at_one_half(size, grid):
    mask = FreeMask(own(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)), size))
    found = mask(torch.rand(2, 3, *size))
    assert mask.grid == grid and found.shape == (2, 1, *grid)
    torch.testing.assert_close(found, torch.full_like(found, 0.5))
    assert defaults_of(mask) is FRESH and not mask.is_trained and not mask.class_conditional


def test_a_value_moves_its_neighbours_as_a_gaussian_of_one_cell():
    mask = FreeMask(own())
    with torch.no_grad():
        mask.logits[0, 0, 7, 7] = 1.0
        moved = mask(torch.zeros(1, 3, *SIZE))[0, 0].logit()
    ratio = moved[7, 8] / moved[7, 7], moved[6, 6] / moved[7, 7]
    torch.testing.assert_close(torch.stack(ratio), torch.tensor([-0.5, -1.0]).exp(), rtol=1e-3, atol=0)
    assert moved.sum() == pytest.approx(1.0, abs=1e-4)


class Corner(nn.Module):
    """Class 1 where the upper left quarter is brighter than 0.3, for images of any number of channels."""

    def forward(self, x):
        height, width = x.shape[-2:]
        bright = 0.5 + 0.25 * x[..., : height // 2, : width // 2].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(bright), 30 * (bright - 0.3)], 1)


@pytest.mark.parametrize(("channels", "size"), [(3, (32, 48)), (13, (24, 24))])
def test_it_finds_the_region_whatever_the_explainee_takes(channels, size):
    explainee = own(Corner(), size, channels)
    images = 0.5 + 0.3 * torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(1))
    mask = FreeMask(explainee)
    found = explain(mask, explainee, images, target=1)
    rows, columns = (side // 2 for side in mask.grid)
    best = found.token_masks.flatten(1).argmax(1)
    assert (best // mask.grid[1] < rows).all() and (best % mask.grid[1] < columns).all()
    assert (found.scores["masked_probability"] > 0.9 * found.scores["probability"]).all()
    assert found.warnings == [[], [], []] and not mask.logits.any()
    alone = explain(mask, explainee, images[1:2], target=1)
    torch.testing.assert_close(alone.token_masks[0], found.token_masks[1], atol=1e-5, rtol=0)


def test_images_of_one_row_are_refused():
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(UserError, match="images of 1 x 8; too small for a mask"):
        FreeMask(own(module, (1, 8)))
