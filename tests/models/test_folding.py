"""Folded batch norms: the same function as the model's own, and only where that is so."""

import copy

import pytest
import torch
from torch import nn

from ltx.models.explainee import Explainee
from ltx.models.folding import fold_batch_norm
from ltx.models.registry import create_model, input_spec


def with_lively_norms(model: nn.Module) -> nn.Module:
    """Norms that do something, as after training."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "resnet18", "tf_efficientnet_lite0"])
def test_same_logits_and_gradients(name):
    model = with_lively_norms(create_model(name))
    folded = fold_batch_norm(model, (3, 64, 64))
    assert folded is not None
    left, before = (sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (folded, model))
    assert left < before / 4
    ours, theirs = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    found, wanted = folded(ours.requires_grad_()), model(theirs.requires_grad_())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    for logits in (found, wanted):
        logits[:, 3].sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4 * theirs.grad.abs().max().item())


def test_a_model_without_batch_norm_is_left_alone():
    assert fold_batch_norm(create_model("test_vit"), (3, 160, 160)) is None


def test_norms_that_do_not_follow_their_neighbour_are_not_folded():
    class Swapped(nn.Module):
        """The norm comes first, though it is named second."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.conv(self.norm(x)).mean((2, 3))

    assert fold_batch_norm(with_lively_norms(Swapped()), (3, 8, 8)) is None


def test_the_explainee_keeps_its_model():
    name = "test_efficientnet"
    model = with_lively_norms(create_model(name))
    explainee = Explainee(model, input_spec(model), name)
    before, images = copy.deepcopy(model.state_dict()), torch.rand(2, 3, *explainee.input_size)
    wanted = explainee(images)
    explainee._fold()
    torch.testing.assert_close(explainee(images), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    assert explainee.model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in explainee.model.state_dict().items())
