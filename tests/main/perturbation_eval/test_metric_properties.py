"""What the metrics' definitions imply, for any map: monotone functions, shifted logits, negatives, shards."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ltx.main.perturbation_eval.curves import removal_steps
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import choose_metrics
from ltx.tests.support.mutations import DETERMINISTIC

FAST = choose_metrics("fast")
BY_ORDER = ("POS", "NEG", "DEL", "INS")
N, SIDE = 3, 32
INCREASING = {
    "affine": lambda s: 3 * s - 7,
    "cube": lambda s: s**3,
    "exp": torch.exp,
    "logistic": torch.sigmoid,
    "rank": lambda s: s.flatten(1).argsort(1).argsort(1).view(s.shape).to(s),
}
seeds = st.integers(0, 2**32 - 1)


def maps_without_ties(seed: int) -> torch.Tensor:
    """(N, SIDE, SIDE) float64, each a permutation of as many different numbers in (-1, 1)."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.linspace(-1, 1, SIDE * SIDE + 2, dtype=torch.float64)[1:-1]
    return torch.stack([levels[torch.randperm(len(levels), generator=generator)] for _ in range(N)]).view(
        N, SIDE, SIDE
    )


class Shifted(nn.Module):
    """An explainee with a constant added to all logits of each image."""

    def __init__(self, explainee: nn.Module, constant: float):
        super().__init__()
        self.explainee, self.constant = explainee, constant

    def forward(self, images):
        return self.explainee(images) + self.constant


@pytest.fixture
def case(make_explainee):
    """An explainee, images and their top classes."""
    explainee, images = make_explainee("vit"), torch.rand(N, 3, SIDE, SIDE)
    return explainee, images, explainee(images).argmax(1)


def scores(case, saliency: torch.Tensor, shown: torch.Tensor | None = None) -> dict[str, np.ndarray]:
    """Every fast metric of each image."""
    explainee, images, classes = case
    saliency = saliency.float()
    shown = saliency.clamp(0, 1) if shown is None else shown
    view = MapView(ImageBatch(explainee, images, classes), saliency, shown)
    return {metric.name: metric.per_image(view).double().numpy() for metric in FAST}


@pytest.mark.parametrize("name", list(INCREASING))
def test_an_increasing_function_of_the_map_leaves_the_order_metrics_unchanged(case, name):
    @DETERMINISTIC
    @given(seeds)
    def unchanged(seed):
        saliency = maps_without_ties(seed)
        changed = INCREASING[name](saliency)
        for first in (True, False):
            assert torch.equal(removal_steps(saliency, first), removal_steps(changed, first))

    unchanged()
    saliency = maps_without_ties(0)
    before, after = scores(case, saliency), scores(case, INCREASING[name](saliency))
    for metric in BY_ORDER:
        np.testing.assert_array_equal(before[metric], after[metric])
    assert (before["POS"] != before["NEG"]).any()  # the order does matter to this explainee


@DETERMINISTIC
@given(seeds)
def test_pos_of_a_map_is_neg_of_its_negative(seed):
    """The same pixels go at the same steps, so all that is read along the curves is the same."""
    saliency = maps_without_ties(seed)
    assert torch.equal(removal_steps(saliency, True), removal_steps(-saliency, False))
    last = removal_steps(saliency, True).long() + removal_steps(saliency, False).long()
    assert (last >= 10).all()  # what goes first in one order is among the last in the other


def test_scores_of_the_negative_map_change_places(case):
    ours, theirs = (scores(case, sign * maps_without_ties(1)) for sign in (1, -1))
    for one, other in (("POS", "NEG"), ("DEL", "INS")):
        np.testing.assert_array_equal(ours[one], theirs[other])
        np.testing.assert_array_equal(ours[other], theirs[one])


@pytest.mark.parametrize("constant", [-40.0, 0.5, 300.0])
def test_a_constant_added_to_all_logits_changes_nothing(case, constant):
    explainee, images, classes = case
    saliency = maps_without_ties(2)
    shown = (saliency.float() + 1) / 2
    plain = scores(case, saliency, shown)
    shifted = scores((Shifted(explainee, constant), images, classes), saliency, shown)
    for name, values in plain.items():
        tolerance = 0 if name in ("POS", "NEG") else 2e-2  # float32 logits near 300 end at 3e-5
        np.testing.assert_allclose(shifted[name], values, rtol=0, atol=tolerance, err_msg=name)


@DETERMINISTIC
@given(st.lists(st.integers(1, N), min_size=1, max_size=N), seeds)
def test_scores_of_parts_are_those_of_the_whole(sizes, seed):
    """Images are scored alone, however they are cut into batches and shards."""
    images = torch.rand(N, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    weight = torch.randn(4, 3 * SIDE * SIDE, generator=torch.Generator().manual_seed(1)).double()

    def explainee(pixels):
        return pixels.double().flatten(1) @ weight.T

    classes, saliency = explainee(images).argmax(1), maps_without_ties(seed)
    whole = scores((explainee, images, classes), saliency)
    cut = np.unique(np.clip(np.cumsum(sizes), 0, N - 1))
    parts = [
        scores((explainee, images[rows], classes[rows]), saliency[rows])
        for rows in np.split(np.arange(N), cut)
        if len(rows)
    ]
    for name, values in whole.items():
        joined = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(joined, values, rtol=0, atol=1e-4, err_msg=name)
