"""What modules give, in all forms, comes back as the logits or probabilities that it stands for."""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ltx.config import UserError
from ltx.models.explainee import Explainee, class_scores, read_class
from ltx.tests.support.classifiers import MEAN, SIZE, STD, Wrapped, net

IMAGES = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def explainee(module, **options) -> Explainee:
    return Explainee.from_module(module, MEAN, STD, SIZE, **options)


def plain(n: int = 5) -> Tensor:
    """Logits of `net` itself."""
    with torch.no_grad():
        return net(n)((IMAGES - 0.5) / 0.25)


@dataclass
class Output:
    loss: object = None
    logits: Tensor | None = None


class ModelOutput(OrderedDict):
    """A mapping with attributes, as transformers has them."""

    def __getattr__(self, key):
        return self[key] if key in self else super().__getattribute__(key)


@pytest.mark.parametrize(
    "change",
    [
        lambda y: (y, y.mean(1)),
        lambda y: [y],
        lambda y: {"logits": y},
        lambda y: {"out": y, "aux": y + 1},
        lambda y: {"aux_first": y},
        lambda y: Output(logits=y),
        lambda y: ModelOutput(logits=y),
        lambda y: SimpleNamespace(logits=y),
        lambda y: y[:, :, None, None],
        lambda y: y[:, None],
    ],
    ids=[
        "tuple",
        "list",
        "dict",
        "dict-out",
        "dict-other",
        "dataclass",
        "model-output",
        "object",
        "1x1",
        "B1C",
    ],
)
def test_logits_are_found_in_outputs_of_any_form(change):
    torch.testing.assert_close(explainee(Wrapped(change))(IMAGES), plain())


@pytest.mark.parametrize(
    ("change", "inside"),
    [
        (lambda y: y.softmax(1), "softmax"),
        (lambda y: y.softmax(1)[:, None], "softmax"),
        (lambda y: y.log_softmax(1), ""),
        (lambda y: y, ""),
    ],
)
def test_probabilities_are_those_of_the_logits(change, inside, caplog):
    with caplog.at_level(logging.WARNING):
        found = explainee(Wrapped(change))
    assert found.outputs.inside == inside
    assert ("ends in a softmax" in caplog.text) == bool(inside)
    classes = torch.tensor([0, 3, 4])
    probability, correct = read_class(found, IMAGES, classes)
    wanted = plain().softmax(1)
    torch.testing.assert_close(probability, wanted[torch.arange(3), classes])
    assert correct.tolist() == (wanted.argmax(1) == classes).float().tolist()


def test_a_softmax_inside_leaves_the_gradient_of_the_cross_entropy_as_it_is():
    gradients = []
    for change in (lambda y: y, lambda y: y.softmax(1)):
        images = IMAGES.clone().requires_grad_(True)
        nn.functional.cross_entropy(explainee(Wrapped(change))(images), torch.tensor([1, 2, 0])).backward()
        gradients.append(images.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("script", [False, True])
def test_sigmoids_inside_make_independent_classes(script):
    module = nn.Sequential(net(), nn.Sigmoid())
    module = torch.jit.script(module) if script else module
    found = explainee(module, multi_label=script)  # TorchScript hides its last step from autograd
    assert found.multi_label and found.outputs.inside == "sigmoid"
    torch.testing.assert_close(class_scores(found(IMAGES), True), plain().sigmoid(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change", [lambda y: y, lambda y: y[:, 0], lambda y: y.sigmoid(), lambda y: y.sigmoid()[:, 0]]
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_one_output_answers_yes_or_no(change, multi_label, caplog):
    with caplog.at_level(logging.WARNING):
        found = explainee(Wrapped(change, 1), multi_label=multi_label)
    assert "read as the answer yes (class 1) or no (class 0)" in caplog.text
    assert (found.num_classes, found.multi_label, found.labels) == (2, False, ("no", "yes"))
    yes = plain(1)[:, 0].sigmoid()
    for answer, wanted in ((1, yes), (0, 1 - yes)):
        probability, correct = read_class(found, IMAGES, torch.full((3,), answer))
        torch.testing.assert_close(probability, wanted, rtol=1e-4, atol=1e-6)
        assert correct.tolist() == (wanted > 0.5).float().tolist()


def test_a_small_logit_is_no_probability():
    """Values that happen to lie in [0, 1] are not taken for a sigmoid's."""
    module = Wrapped(lambda y: 0.4 + 0.001 * y, 1)
    assert explainee(module).outputs.inside == ""
    torch.testing.assert_close(explainee(module)(IMAGES)[:, 1:], 0.4 + 0.001 * plain(1))


def test_what_is_said_of_outputs_can_be_overruled():
    found = explainee(Wrapped(lambda y: y.softmax(1)), outputs="logits")
    torch.testing.assert_close(found(IMAGES), plain().softmax(1))
    with pytest.raises(UserError, match="outputs 'other': choose from auto, logits, any"):
        explainee(net(), outputs="other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:, :, None, None].expand(-1, -1, 8, 8), r"gives \(\d, 5, 8, 8\)"),
        (lambda y: (100 * y).long(), "gives torch.int64 values, which have no gradient"),
        (lambda y: y * torch.nan, "gives NaN or infinite values"),
        (lambda y: y / 0, "gives NaN or infinite values"),
        (lambda y: y.detach(), r"no gradient by the image.*torch\.no_grad.*quantised"),
        (lambda y: y * 0, "does not depend on the image"),
        (lambda y: y.round(), "does not depend on the image"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(change, message):
    with pytest.raises(UserError, match=message):
        explainee(Wrapped(change))


def test_outputs_without_logits_wait_for_a_function():
    found = explainee(Wrapped(lambda y: None))
    with pytest.raises(UserError, match="pass a function as the target"):
        found(IMAGES)
    picture = explainee(Wrapped(lambda y: y[:, :, None, None].expand(-1, -1, 8, 8)), outputs="any")
    assert picture.output(IMAGES).shape == (3, 5, 8, 8)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_forward_pass_without_gradient_is_refused(context):
    class Predict(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            with context():
                return self.net(x)

    with pytest.raises(UserError, match="has no gradient by the image"):
        explainee(Predict())


def test_nan_weights_are_named():
    module = net()
    module[-1].weight.data[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"NaN or infinite weights: '4.weight' has 1 of 160"):
        explainee(module)
