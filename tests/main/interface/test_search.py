"""A failed explanation is tried again from another start, and else says that it failed."""

from dataclasses import replace

import pytest
import torch

from ltx.main.api import FRESH, Explainee, FreeMask, Objective, explain
from ltx.main.interface import search
from ltx.tests.support.classifiers import MEAN, SIZE, STD, net

IMAGES = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(3))
EMPTY = Objective("l1", 1000.0)  # nothing is worth keeping


@pytest.fixture
def explainee() -> Explainee:
    return Explainee.from_module(net(), MEAN, STD, SIZE)


def test_an_empty_mask_is_tried_again_from_a_free_one(explainee, make_explainer):
    explainer = make_explainer(activation="sigmoid")
    found = explain(explainer, explainee, IMAGES, steps=25, lr=1e-2, objective=EMPTY)
    assert found.warnings == [[], [], []]
    wanted = explain(FreeMask(explainee), explainee, IMAGES, steps=25)
    for name, values in wanted.scores.items():
        if name != "mask_area":  # on the explainer's own grid
            torch.testing.assert_close(found.scores[name], values, atol=0.2, rtol=0)
    torch.testing.assert_close(found.figures["loss"], wanted.figures["loss"])
    with torch.no_grad():
        torch.testing.assert_close(found.variants["pltx"], explainer(IMAGES)[:, 0])
    assert found.token_masks.shape[-2:] == explainer.grid and found.token_masks.mean() > 0.02


def test_images_that_succeeded_keep_their_masks(explainee):
    start = FreeMask(explainee)
    whole = explain(start, explainee, IMAGES)
    assert whole.warnings == [[], [], []]
    for row in range(len(IMAGES)):
        alone = explain(start, explainee, IMAGES[row : row + 1])
        torch.testing.assert_close(alone.token_masks[0], whole.token_masks[row], atol=1e-5, rtol=0)


def test_what_fails_twice_says_why(explainee, monkeypatch):
    monkeypatch.setattr(search, "RETRY", replace(FRESH, objective=EMPTY))
    found = explain(FreeMask(explainee), explainee, IMAGES[:1], objective=EMPTY, lr=5.0)
    assert len(found.warnings) == 1 and "the mask is empty" in found.warnings[0][0]


def test_one_forward_pass_is_not_tried_again(explainee, make_explainer):
    explainer = make_explainer()
    explainer.metadata = {}
    with torch.no_grad():
        explainer.head[-1].bias.fill_(-20.0)
    found = explain(explainer, explainee, IMAGES)
    assert all("the mask is empty" in warnings[0] for warnings in found.warnings) and not found.figures
