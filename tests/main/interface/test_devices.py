"""Models on another device than the images: all follow the explainee. No GPU is needed, as no values are.

PyTorch's `meta` device refuses to compute with tensors of another one, and has no values to read back.
"""

import importlib

import pytest
import torch

from ltx.main.api import Explainee, Explainer, FreeMask, Objective, explain
from ltx.main.interface import search
from ltx.tests.support.classifiers import MEAN, SIZE, STD, net

META = torch.device("meta")
ORDERED = Objective("l1", order_loss_mul=1.0, smooth_loss_mul=1.0)


@pytest.fixture
def no_values(monkeypatch):
    """What reads values is left out: the top classes, and the verdict."""
    module = importlib.import_module("ltx.main.interface.explain")
    monkeypatch.setattr(
        module, "_classes", lambda target, model, images, n: images.new_zeros(len(images)).long()
    )
    monkeypatch.setattr(search, "warnings_of", lambda scores, masks: [[] for _ in masks])


@pytest.fixture(params=["mask", "tokens", "class-conditional"])
def explainer(request, make_explainer) -> Explainer:
    """An explainer on the CPU."""
    if request.param == "mask":
        return FreeMask(Explainee.from_module(net(), MEAN, STD, SIZE))
    return make_explainer(class_rows=5 if request.param == "class-conditional" else None)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("objective", [None, ORDERED, Objective(fill="blur")])
def test_explainer_and_images_follow_the_explainee(steps, objective, explainer, no_values):
    explainee = Explainee.from_module(net(), MEAN, STD, SIZE).to(META)
    images = torch.rand(2, 3, 40, 50)
    found = explain(explainer, explainee, images, steps=steps, objective=objective)
    assert {value.device for value in (found.saliency, found.token_masks, *found.scores.values())} == {META}
    assert {value.device.type for value in explainer.state_dict().values()} == {"cpu"}


def test_a_free_mask_is_made_beside_its_explainee():
    mask = FreeMask(Explainee.from_module(net(), MEAN, STD, SIZE).to(META))
    assert {value.device for value in (*mask.parameters(), *mask.buffers())} == {META}
