"""Signs of a failed explanation."""

import pytest
import torch

from ltx.main.interface.verdict import warnings_of

ROUND = torch.zeros(7, 7)
ROUND[2:5, 2:5] = 0.9


def scores(whole, masked, complement):
    names = ("probability", "masked_probability", "complement_probability")
    return {
        name: torch.tensor([value]) for name, value in zip(names, (whole, masked, complement), strict=True)
    }


@pytest.mark.parametrize(
    ("figures", "fails"),
    [
        ((0.97, 0.25, 0.96), True),
        ((0.97, 0.95, 0.96), False),  # one of several parts that each suffice
        ((0.97, 0.25, 0.30), False),  # what is removed matters
        ((0.10, 0.04, 0.12), True),
        ((float("nan"), 0.0, 0.0), False),
    ],
)
def test_scores(figures, fails):
    (found,) = warnings_of(scores(*figures), ROUND[None])
    assert len(found) == fails
    if fails:
        assert "less than half" in found[0]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.full((7, 7), 0.01), "the mask is empty: it keeps 1.0%, and its peak is 0.01"),
        (torch.zeros(7, 7), "the mask is empty"),
        (torch.full((7, 7), 0.99), "the mask is full: it keeps 99.0%"),
        (torch.eye(49)[24].view(7, 7), "the mask is a single cell of 7 x 7"),
        (torch.eye(4)[0].view(2, 2), None),
        (ROUND, None),
    ],
)
def test_masks(mask, words):
    (found,) = warnings_of(scores(0.9, 0.9, 0.1), mask[None])
    assert len(found) == (words is not None) and (words is None or words in found[0])


def test_rows_stay_apart_and_functions_are_judged_by_their_mask_alone():
    masks = torch.stack([ROUND, torch.zeros(7, 7)])
    both = {name: torch.cat([value, value]) for name, value in scores(0.9, 0.9, 0.1).items()}
    assert [len(found) for found in warnings_of(both | {"mask_area": torch.zeros(2)}, masks)] == [0, 1]
    of_function = {"score": torch.tensor([9.0, 9.0]), "masked_score": torch.tensor([0.0, 0.0])}
    assert [len(found) for found in warnings_of(of_function, masks)] == [0, 1]
