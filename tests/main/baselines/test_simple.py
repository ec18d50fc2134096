import torch
from torch import nn

from config import BaselineOptions
from main.baselines.base import Batch
from main.baselines.simple import input_gradient, random_map
from models.explainee import Explainee
from models.registry import InputSpec

OPTIONS = BaselineOptions(method="random")


def linear_explainee(weight: torch.Tensor, mean=(0.5, 0.4, 0.3), std=(0.2, 0.5, 0.1)) -> Explainee:
    """Logits that are linear in the normalised pixels: weight (C, 3, H, W)."""
    layer = nn.Linear(weight[0].numel(), len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight.flatten(1))
    model = nn.Sequential(nn.Flatten(), layer)
    model.num_classes = len(weight)
    return Explainee(model, InputSpec(tuple(weight.shape[-2:]), mean, std), "linear")


def test_input_gradient_of_a_linear_model_is_its_weight_over_the_std():
    weight = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    explainee = linear_explainee(weight)
    batch = Batch(torch.rand(2, 3, 6, 5), torch.tensor([3, 1]), ["a", "b"])
    expected = (weight[batch.classes] / torch.tensor([0.2, 0.5, 0.1]).view(1, 3, 1, 1)).abs().amax(1)
    torch.testing.assert_close(input_gradient(explainee, batch, OPTIONS), expected)


def test_random_maps_depend_on_the_name_and_seed_alone():
    images = torch.rand(2, 3, 6, 5)
    both = random_map(None, Batch(images, None, ["a", "b"]), OPTIONS)
    alone = random_map(None, Batch(images[:1], None, ["b"]), OPTIONS)
    torch.testing.assert_close(both[1], alone[0], rtol=0, atol=0)
    assert not torch.equal(both[0], both[1])
    other = random_map(None, Batch(images[:1], None, ["b"]), BaselineOptions(method="random", seed=7))
    assert not torch.equal(other[0], alone[0])
