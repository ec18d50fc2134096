"""The smallest mask that keeps the class, on models whose answer is known."""

import pytest
import torch

from ltx.main.explanation.keeping import AREAS, keeping_levels
from ltx.models.explainee import Explainee
from ltx.models.registry import InputSpec


class Corner(torch.nn.Module):
    """Class 1 where the mean of the upper left 8 x 8 pixels is above a half."""

    def forward(self, images):
        mean = images[:, :, :8, :8].mean((1, 2, 3))
        return torch.stack([torch.full_like(mean, 5.0), 10 * mean], 1)


@pytest.fixture
def corner():
    return Explainee(Corner(), InputSpec((32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), "corner")


def test_smallest_area_of_those_tried(corner):
    """Half of the corner's 64 pixels, 3.1% of the image, must be kept: the next area tried counts."""
    inside, saliency = torch.zeros(32, 32, dtype=torch.bool), torch.empty(32, 32)
    inside[:8, :8] = True
    ordered = torch.linspace(1, 0.1, 1024)
    saliency[inside], saliency[~inside] = ordered[:64], ordered[64:]
    (level,) = keeping_levels(corner, torch.ones(3, 32, 32), saliency[None], torch.tensor([1]))
    area = float((saliency >= level).float().mean())
    wanted = next(area for area in AREAS if round(area * 1024) > 32)
    assert area == pytest.approx(wanted, abs=1 / 1024)


def test_a_class_that_is_not_predicted_is_kept_where_it_is_no_less_probable(corner):
    saliency = torch.linspace(1, 0, 1024).view(32, 32).flip(0)
    levels = keeping_levels(
        corner, torch.ones(3, 32, 32), saliency[None].expand(2, -1, -1), torch.tensor([0, 1])
    )
    assert (saliency >= levels[0]).float().mean() == pytest.approx(AREAS[0], abs=1e-3)
    assert (saliency >= levels[1]).float().mean() > 0.75  # the corner comes last in this map


def test_the_whole_image_keeps_every_class(corner):
    (level,) = keeping_levels(corner, torch.ones(3, 32, 32), torch.full((1, 32, 32), 0.5), torch.tensor([1]))
    assert level == 0.5
