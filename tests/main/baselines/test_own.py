"""A function as a baseline."""

import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.main.baselines.base import Batch
from ltx.main.baselines.methods import BASELINES, add_baseline
from ltx.main.baselines.options import BaselineOptions
from ltx.main.baselines.own import from_callable
from ltx.main.baselines.simple import input_gradient
from ltx.models.explainee import Explainee
from ltx.tests.support.classifiers import MEAN, SIZE, STD, net

BATCH = Batch(torch.rand(2, 3, *SIZE), torch.tensor([1, 3]), ["a", "b"])
OPTIONS = BaselineOptions(method="", explainee_model_name="x")


@pytest.fixture
def explainee() -> Explainee:
    return Explainee.from_module(net(), MEAN, STD, SIZE)


def gradient(model, inputs, targets):
    inputs = inputs.requires_grad_(True)
    own = model(inputs).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(own, inputs)[0].abs().amax(1)


def test_a_function_sees_the_module_and_its_normalised_images(explainee):
    found = from_callable(gradient).compute(explainee, BATCH, OPTIONS)
    wanted = input_gradient(explainee, BATCH, OPTIONS)  # by pixels: 1 / std of the one by inputs
    torch.testing.assert_close(found / STD[0], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [lambda m: m[:, None], lambda m: m[:, None].expand(-1, 3, -1, -1) / 3, lambda m: m.numpy(), np.array],
)
def test_maps_of_any_form(change, explainee):
    found = from_callable(lambda *a: change(gradient(*a))).compute(explainee, BATCH, OPTIONS)
    torch.testing.assert_close(found, gradient(explainee.model, (BATCH.images - 0.5) / 0.25, BATCH.classes))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(2, 4, 4), r"maps of \(2, 4, 4\); wanted \(2, 32, 32\)"),
        (torch.full((2, *SIZE), torch.nan), "gives NaN or infinite maps"),
    ],
)
def test_maps_that_are_refused(maps, message, explainee):
    with pytest.raises(UserError, match=message):
        from_callable(lambda *_: maps).compute(explainee, BATCH, OPTIONS)


def test_a_function_gets_a_name_like_the_others(monkeypatch):
    monkeypatch.setattr("ltx.main.baselines.methods.BASELINES", known := dict(BASELINES))
    add_baseline("mine", gradient)
    assert known["mine"].source == "gradient, given from Python"
    for name in ("mine", "rise", "no name"):
        with pytest.raises(UserError, match="the name is taken"):
            add_baseline(name, gradient)
