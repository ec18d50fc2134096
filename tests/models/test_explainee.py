"""The frozen classifier: normalisation inside, gradients to the input and never to the weights."""

import pytest
import torch
from torch import nn

from ltx.models.explainee import Explainee
from ltx.models.registry import InputSpec, create_model

SPEC = InputSpec((8, 10), (0.1, 0.2, 0.3), (0.5, 0.4, 0.25))


class AnyModule(nn.Module):
    """A classifier that knows nothing of timm."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(240, 3))

    def forward(self, x):
        return self.layers(x)


def test_any_module_with_mean_std_and_size():
    model = AnyModule()
    explainee = Explainee(model, SPEC, "mine")
    images = torch.rand(2, 3, 8, 10)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (SPEC.mean, SPEC.std))
    expected = ((images - mean) / std).flatten(1) @ model.layers[2].weight.T + model.layers[2].bias
    torch.testing.assert_close(explainee(images), expected)
    assert explainee.num_classes == 3 and explainee.input_size == (8, 10)


def test_stays_frozen_and_in_eval_mode():
    explainee = Explainee(AnyModule().train(), SPEC, "mine").train()
    assert not any(module.training for module in explainee.modules())
    assert not any(parameter.requires_grad for parameter in explainee.parameters())
    images = torch.rand(2, 3, 8, 10)
    assert torch.equal(explainee(images), explainee(images))  # dropout is off


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_gradients_reach_the_input_and_not_the_weights(make_explainee, kind):
    explainee = make_explainee(kind)
    before = {key: value.clone() for key, value in explainee.state_dict().items()}
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    explainee(images)[:, 1].sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in explainee.parameters())
    assert all(torch.equal(value, before[key]) for key, value in explainee.state_dict().items())


def test_mean_and_std_are_the_models_own():
    explainee = Explainee(create_model("test_resnet"), InputSpec((64, 64), (0.2,) * 3, (0.3,) * 3), "x")
    assert explainee.mean.flatten().tolist() == pytest.approx([0.2] * 3)
    assert explainee.std.flatten().tolist() == pytest.approx([0.3] * 3)


def test_batches_do_not_matter(make_explainee):
    explainee, images = make_explainee("cnn"), torch.rand(5, 3, 32, 32)
    alone = torch.cat([explainee(image[None]) for image in images])
    torch.testing.assert_close(explainee(images), alone, rtol=1e-4, atol=1e-5)
