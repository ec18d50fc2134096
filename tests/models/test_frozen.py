"""Frozen linear layers, and precisions: the same function, gradients to the input, nothing else touched."""

import copy

import pytest
import torch
from torch import nn

from ltx.models import frozen
from ltx.models.frozen import FrozenLinear, freeze_linears

SHAPE = (3, 32, 32)


@pytest.fixture(params=[False, True])
def onednn(request, monkeypatch):
    if request.param and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(frozen, "prefers_onednn", lambda: request.param)
    return request.param


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 5, 7)])
def test_a_frozen_linear_layer_is_the_layer(onednn, bias, shape):
    layer = nn.Linear(7, 4, bias=bias).requires_grad_(False)
    own = FrozenLinear(layer, "float32")
    assert own.by_onednn == onednn
    x = torch.randn(shape, requires_grad=True)
    y = torch.randn(*shape[:-1], 4)
    expected, found = layer(x), own(x)
    torch.testing.assert_close(found, expected)
    wanted, got = (torch.autograd.grad((values * y).sum(), x)[0] for values in (expected, found))
    torch.testing.assert_close(got, wanted)
    assert not list(own.parameters())


def test_transposed_inputs(onednn):
    layer = nn.Linear(6, 4).requires_grad_(False)
    x = torch.randn(6, 5).t()
    torch.testing.assert_close(FrozenLinear(layer, "float32")(x), layer(x))


def test_a_model_is_left_alone_where_float32_gains_nothing(monkeypatch, make_backbone):
    monkeypatch.setattr(frozen, "prefers_onednn", lambda: False)
    assert freeze_linears(make_backbone("vit").requires_grad_(False), "float32", SHAPE) is None


@pytest.mark.parametrize("onednn", [True], indirect=True)
def test_a_frozen_model_gives_the_same_logits_and_input_gradients(onednn, make_backbone):
    model = make_backbone("vit").requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    fast = freeze_linears(model, "float32", SHAPE)
    assert any(isinstance(module, FrozenLinear) for module in fast.modules())
    assert not any(isinstance(module, FrozenLinear) for module in model.modules())
    images = torch.randn(3, *SHAPE, requires_grad=True)
    expected, found = model(images), fast(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (wanted,), (got,) = torch.autograd.grad(expected.sum(), images), torch.autograd.grad(found.sum(), images)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_copy_that_differs_is_not_used(monkeypatch, make_backbone):
    monkeypatch.setattr(frozen, "prefers_onednn", lambda: True)
    monkeypatch.setattr(frozen, "_product", lambda *layer: 1.1 * nn.functional.linear(*layer))
    assert freeze_linears(make_backbone("vit").requires_grad_(False), "float32", SHAPE) is None


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_bf16_is_near_float32_and_its_results_are_float32(make_explainee, make_explainer, kind):
    explainee, explainer = make_explainee(kind), make_explainer(kind)
    images = torch.rand(4, 3, 32, 32, requires_grad=True)
    logits, masks = explainee(images), explainer(images)
    explainee.speed_up("bf16")
    explainer.precision = "bf16"
    low_logits, low_masks = explainee(images), explainer(images)
    assert low_logits.dtype == low_masks.dtype == torch.float32
    assert not torch.equal(low_logits, logits) and not torch.equal(low_masks, masks)
    torch.testing.assert_close(low_logits, logits, rtol=0, atol=0.05 * logits.abs().max().item())
    torch.testing.assert_close(low_masks, masks, rtol=0, atol=0.05)
    (gradient,) = torch.autograd.grad(low_logits.sum() + low_masks.sum(), images)
    assert gradient.isfinite().all() and gradient.dtype == torch.float32


def test_speeding_up_leaves_the_model_and_its_weights_alone(make_explainee):
    explainee = make_explainee("vit")
    before, model = copy.deepcopy(explainee.model.state_dict()), explainee.model
    explainee.speed_up("bf16")
    assert explainee.model is model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
