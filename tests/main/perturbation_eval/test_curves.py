"""Removal curves and their areas by hand, with explainees that are linear in the pixels."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

from ltx.main.perturbation_eval.curves import auc, removal_counts, removal_curve, removal_steps, remove
from ltx.models.explainee import read_class

SIDE = 10


def both_curves(explainee, images, saliency, classes, most_salient_first, **arguments):
    unmasked = read_class(explainee, images, classes)
    return removal_curve(explainee, images, saliency, classes, most_salient_first, unmasked, **arguments)


def area(readings) -> float:
    """Trapezoid over 0 ... 0.9, written out: half of both ends, all of the middle, 10 each."""
    return 10 * (sum(readings) - readings[0] / 2 - readings[-1] / 2)


@pytest.mark.parametrize("n", [10, 30, 49, 100, 64 * 64, 112 * 97, 224 * 224, 240 * 240, 333 * 500])
def test_removal_counts_are_exact_floors(n):
    assert removal_counts(n) == [floor(Fraction(step, 10) * n) for step in range(10)]


def test_removal_counts_where_floating_point_is_one_short():
    assert int((1 - 0.9) * 10) == 0  # what these cases would come to with floats
    assert removal_counts(30)[7] == 21
    assert removal_counts(10) == list(range(10))


@pytest.mark.parametrize("most_salient_first", [True, False])
def test_removed_pixels_against_a_plain_sort(most_salient_first):
    saliency = torch.randint(0, 6, (4, 7, 9)).float() / 5  # many ties
    images = torch.rand(4, 3, 7, 9)
    steps = removal_steps(saliency, most_salient_first)
    for i in range(4):
        flat = saliency[i].flatten().tolist()
        order = sorted(range(63), key=lambda p: (-flat[p] if most_salient_first else flat[p], p))
        for step in range(10):
            expected = images[i].clone().flatten(1)
            expected[:, order[: floor(Fraction(step, 10) * 63)]] = 0
            removed = remove(images[i : i + 1], steps[i : i + 1], torch.tensor([step]))[0]
            assert torch.equal(removed.flatten(1), expected)


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_other_fills_stand_where_pixels_are_removed(fill):
    from ltx.models.masking import fill_of

    images, saliency = torch.rand(2, 3, 12, 12), torch.rand(2, 12, 12)
    steps = removal_steps(saliency, True)
    removed = remove(images, steps, torch.tensor([4, 9]), fill)
    gone = (steps <= torch.tensor([[4], [9]])).view(2, 1, 12, 12).expand_as(images)
    assert torch.equal(removed[~gone], images[~gone])
    assert torch.equal(removed[gone], fill_of(images, fill)[gone])
    assert gone[:, 0].sum((1, 2)).tolist() == [57, 129]


@pytest.mark.parametrize(
    "threshold, last_correct", [(5.5, 9), (34.5, 6), (55.0, 4), (95.5, 0), (100.5, None)]
)
def test_uniform_linear_explainee(linear_explainee, threshold, last_correct):
    """White image, weight 1 everywhere: 100 - 10k after step k, against a second class at the threshold."""
    weight = torch.stack([torch.ones(SIDE, SIDE), torch.zeros(SIDE, SIDE)])
    explainee = linear_explainee(weight, torch.tensor([0.0, threshold]))
    image, saliency = torch.ones(1, 3, SIDE, SIDE), torch.rand(1, SIDE, SIDE)
    probability, correct = both_curves(explainee, image, saliency, torch.tensor([0]), True)
    n_correct = 0 if last_correct is None else last_correct + 1
    assert correct[0].tolist() == [1.0] * n_correct + [0.0] * (10 - n_correct)
    closed_form = {None: 0, 0: 5, 9: 90}.get(last_correct, 5 + 10 * (last_correct or 0))
    assert auc(correct).item() == closed_form
    expected = [1 / (1 + np.exp(threshold - (100 - 10 * k))) for k in range(10)]
    np.testing.assert_allclose(probability[0].numpy(), expected, rtol=1e-4, atol=1e-30)
    assert auc(probability).item() == pytest.approx(area(expected), rel=1e-4)


def test_ramp_explained_by_its_own_weights(linear_explainee):
    """Weights 0 ... 99 as the map: POS takes away the heaviest first, NEG the lightest, sums by Gauss."""
    ramp = torch.arange(100.0).view(SIDE, SIDE)
    explainee = linear_explainee(torch.stack([ramp, torch.zeros_like(ramp)]), torch.tensor([0.0, 2000.0]))
    image = torch.ones(1, 3, SIDE, SIDE)
    left_pos = [sum(range(100 - 10 * k)) for k in range(10)]  # 4950, 4005, 3160, 2415, 1770, ...
    left_neg = [sum(range(10 * k, 100)) for k in range(10)]  # 4950, 4905, ..., 945
    for most_salient_first, left in ((True, left_pos), (False, left_neg)):
        probability, correct = both_curves(
            explainee, image, ramp[None], torch.tensor([0]), most_salient_first
        )
        assert correct[0].tolist() == [float(value > 2000) for value in left]
        expected = 1 / (1 + np.exp(np.clip(2000 - np.array(left, float), -700, 700)))
        np.testing.assert_allclose(probability[0].numpy(), expected, atol=1e-7)
    assert [value > 2000 for value in left_pos].count(True) == 4  # POS 5 + 3 * 10
    assert [value > 2000 for value in left_neg].count(True) == 8  # NEG 5 + 7 * 10


@pytest.fixture
def object_case(linear_explainee):
    """A 4x5 object in a 10x10 white image; its class needs more than half of the object."""
    oracle = torch.zeros(SIDE, SIDE)
    oracle[2:6, 3:8] = 1
    explainee = linear_explainee(torch.stack([oracle, torch.zeros_like(oracle)]), torch.tensor([0.0, 10.5]))
    return explainee, torch.ones(1, 3, SIDE, SIDE), oracle[None]


def test_oracle_mask(object_case):
    """20 of 100 pixels: POS falls at the first step (10 of 20 left), NEG holds until 80 are gone."""
    explainee, image, oracle = object_case
    target = torch.tensor([0])
    pos, neg = (both_curves(explainee, image, oracle, target, first)[1] for first in (True, False))
    assert pos[0].tolist() == [1] + [0] * 9 and auc(pos).item() == 5
    assert neg[0].tolist() == [1] * 9 + [0] and auc(neg).item() == pytest.approx(85)
    inverse = 1 - oracle
    pos, neg = (auc(both_curves(explainee, image, inverse, target, first)[1]) for first in (True, False))
    assert (pos.item(), neg.item()) == pytest.approx((85, 5))


def test_ties_go_by_pixel_index(object_case):
    """A constant map removes whole rows from the top in both directions: the object loses 5 at 3, 4, 5, 6."""
    explainee, image, _ = object_case
    for value in (0.0, 0.4, 1.0):
        constant = torch.full((1, SIDE, SIDE), value)
        curves = [
            both_curves(explainee, image, constant, torch.tensor([0]), first) for first in (True, False)
        ]
        assert torch.equal(curves[0][1], curves[1][1]) and torch.equal(curves[0][0], curves[1][0])
        # rows gone: 0 1 2 3 4 5 ... -> object pixels left: 20 20 20 15 10 5 0 ...
        assert curves[0][1][0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
        assert auc(curves[0][1]).item() == 35


def test_ties_inside_a_map(linear_explainee):
    """Two pixel values; only pixel 3 counts. It is the second of the salient ones (1, 3, 5, ...)."""
    weight = torch.zeros(2, 2, 5)
    weight[0].view(-1)[3] = 1
    explainee = linear_explainee(weight, torch.tensor([0.0, 0.5]))
    saliency = (torch.arange(10) % 2).float().view(1, 2, 5)
    pos, neg = (
        both_curves(explainee, torch.ones(1, 3, 2, 5), saliency, torch.tensor([0]), first)[1][0].tolist()
        for first in (True, False)
    )
    assert pos == [1, 1] + [0] * 8  # removed in the order 1 3 5 7 9 0 2 ...
    assert neg == [1] * 7 + [0] * 3  # removed in the order 0 2 4 6 8 1 3 ...


@pytest.mark.parametrize("size", [(8, 8), (7, 11)])
def test_pos_of_a_map_is_neg_of_its_negative(make_explainee, size):
    explainee = make_explainee("cnn", size=(32, 32))
    images, saliency = torch.rand(6, 3, *size), torch.randint(0, 9, (6, *size)).float() / 8
    classes = explainee(images).argmax(1)
    pos = both_curves(explainee, images, saliency, classes, True)
    neg = both_curves(explainee, images, -saliency, classes, False)
    assert torch.equal(pos[0], neg[0]) and torch.equal(pos[1], neg[1])


@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_batch_size_changes_nothing(make_explainee, fill):
    explainee, images = make_explainee("vit"), torch.rand(5, 3, 32, 32)
    saliency, classes = torch.rand(5, 32, 32), torch.tensor([0, 1, 2, 3, 4])
    first = both_curves(explainee, images, saliency, classes, True, fill=fill, batch_size=64)
    for batch_size in (1, 7, 44):
        other = both_curves(explainee, images, saliency, classes, True, fill=fill, batch_size=batch_size)
        torch.testing.assert_close(first[0], other[0], rtol=1e-4, atol=1e-6)
        assert torch.equal(first[1], other[1])


def test_auc_is_the_trapezoid_rule_and_at_most_90():
    curves = torch.rand(4, 10)
    x = np.arange(10) / 10
    expected = [np.trapezoid(curve, x) * 100 for curve in curves.double().numpy()]
    np.testing.assert_allclose(auc(curves).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(auc(curves).numpy(), [area(c) for c in curves.double().tolist()], rtol=1e-12)
    assert auc(torch.ones(10)).item() == 90 and auc(torch.zeros(10)).item() == 0


def test_mean_of_areas_is_the_area_of_the_mean_curve():
    curves = torch.rand(50, 10, dtype=torch.float64)
    assert auc(curves).mean().item() == pytest.approx(auc(curves.mean(0)).item(), rel=1e-12)


def test_read_class(make_explainee):
    explainee, images = make_explainee("cnn"), torch.rand(6, 3, 32, 32)
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    probability, correct = read_class(explainee, images, classes)
    logits = explainee(images).detach().double().numpy()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probability.numpy(), softmax[range(6), classes], rtol=1e-5)
    assert correct.tolist() == (logits.argmax(1) == classes.numpy()).astype(float).tolist()
    assert not probability.requires_grad
