"""Rounded kinks: the same forward pass, a derivative without jumps, shared weights."""

import pytest
import torch
from torch import nn

from ltx.models.explainee import Explainee
from ltx.models.function_target import FunctionTarget
from ltx.models.kinks import RoundedReLU, round_kinks


def derivative(module, x):
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    module(x).sum().backward()
    return x.grad.tolist()


@pytest.mark.parametrize("top", [None, 6.0])
def test_forward_is_that_of_the_layer(top):
    x = torch.linspace(-2, 9, 50)
    torch.testing.assert_close(RoundedReLU(0.5, top)(x), x.clamp(0, top), rtol=0, atol=0)


def test_the_derivative_is_a_ramp_at_each_kink():
    expected = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    x = [-0.5, -0.25, 0.0, 0.25, 0.5, 3.0]
    assert derivative(RoundedReLU(0.5), x) == pytest.approx(expected)
    assert derivative(RoundedReLU(0.5, 6.0), x) == pytest.approx(expected)
    assert derivative(RoundedReLU(0.5, 6.0), [6 - value for value in x]) == pytest.approx(expected)
    assert derivative(RoundedReLU(0.5), [6.0, 100.0]) == [1.0, 1.0]


def test_away_from_the_kinks_it_is_the_layer_s_own():
    x = [-7.0, 0.31, 1.0, 5.69, 6.31]
    assert derivative(RoundedReLU(0.3, 6.0), x) == pytest.approx(derivative(nn.ReLU6(), x))


def test_a_network_is_copied_with_its_weights_shared():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(inplace=True), nn.Sequential(nn.ReLU(), nn.GELU()))
    rounded = round_kinks(model, 0.3)
    assert [type(part) for part in model.modules()].count(RoundedReLU) == 0
    assert (rounded[1].top, rounded[2][0].top, rounded[1].width) == (6.0, None, 0.3)
    assert rounded[0].weight is model[0].weight and isinstance(rounded[2][1], nn.GELU)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(rounded(images), model(images), rtol=0, atol=0)


def test_an_explainee_computes_the_same_and_stays_as_it_is(make_explainee):
    explainee, images = make_explainee("cnn", size=(64, 64)), torch.rand(2, 3, 64, 64)
    rounded = explainee.with_rounded_kinks(0.5)
    torch.testing.assert_close(rounded(images), explainee(images), rtol=0, atol=0)
    assert not any(isinstance(part, RoundedReLU) for part in explainee.modules())
    gradients = []
    for model in (explainee, rounded):
        pixels = images.clone().requires_grad_(True)
        model(pixels)[:, 0].sum().backward()
        gradients.append(pixels.grad)
    assert not torch.equal(*gradients)


def test_a_module_that_refuses_a_copy_keeps_its_kinks(make_backbone):
    class Single(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = make_backbone("cnn", (32, 32))

        def forward(self, images):
            return self.inside(images)

        def __deepcopy__(self, memo):
            raise RuntimeError("one of a kind")

    explainee = Explainee.from_module(Single(), 0.5, 0.25, input_size=32)
    assert explainee.with_rounded_kinks(0.3) is explainee


def test_functions_as_targets_have_them_too(make_explainee):
    explainee, images = make_explainee("cnn", size=(64, 64)), torch.rand(2, 3, 64, 64)
    target = FunctionTarget(explainee, lambda output: output[:, 1], images)
    rounded = target.with_rounded_kinks(0.5)
    torch.testing.assert_close(rounded(images), target(images), rtol=0, atol=0)
    assert any(isinstance(part, RoundedReLU) for part in rounded.explainee._folded.modules())
