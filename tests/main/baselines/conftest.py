"""Small random explainees of many architectures."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from ltx.main.baselines.base import Batch
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee
from ltx.models.registry import InputSpec

_VIT = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
KINDS = {
    "vit": ("vit_tiny_patch16_224", _VIT, (32, 32)),
    "wide": ("vit_tiny_patch16_224", _VIT, (32, 48)),
    "deit": ("deit_tiny_distilled_patch16_224", _VIT, (32, 32)),
    "registers": ("vit_tiny_patch16_224", _VIT | {"reg_tokens": 4}, (32, 32)),
    "pooled": ("vit_tiny_patch16_224", _VIT | {"global_pool": "avg", "class_token": False}, (32, 32)),
    "resnet": ("resnet10t", {"stem_width": 8, "channels": (8, 8, 16, 16)}, (64, 64)),
    "mobilenet": ("mobilenetv2_035", {"act_layer": nn.ReLU}, (64, 96)),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}, (64, 64)),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4},
        (32, 64),
    ),
}
ATTENTION_KINDS = ("vit", "wide", "deit", "registers", "pooled")
TOKEN_GRIDS = {"wide": (4, 6)}


def tiny(kind: str, seed: int = 0) -> Explainee:
    """A random explainee with 5 classes whose weights are large enough to matter."""
    name, arguments, size = KINDS[kind]
    arguments = dict(arguments)
    if kind not in ("resnet", "mobilenet", "convnext"):
        arguments["img_size"] = size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, num_classes=5, **arguments)
        for key, value in model.named_parameters():
            if value.dim() > 1 and kind in (*ATTENTION_KINDS, "swin"):
                nn.init.normal_(value, std=1.0 if key.startswith("head") else 0.25)
            elif value.dim() == 1 and key.endswith("bias"):
                nn.init.normal_(value, std=0.2)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return Explainee(model.eval(), InputSpec(size, (0.4, 0.5, 0.6), (0.3, 0.25, 0.2)), f"tiny_{kind}")


@pytest.fixture
def make_tiny() -> Callable[..., Explainee]:
    """The function `tiny`: `make_tiny(kind, seed=0)`, kinds as in `KINDS`."""
    return tiny


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """`make_batch(explainee, n=2)`: random images, the explainee's predicted classes, names."""

    def make(explainee, n=2):
        images = torch.rand(n, 3, *explainee.input_size, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            classes = explainee(images).argmax(1)
        return Batch(images, classes, [f"image {i}" for i in range(n)])

    return make


@pytest.fixture
def options() -> BaselineOptions:
    """Options with few samples."""
    return BaselineOptions(method="", smoothgrad_samples=4, ig_steps=8, rise_masks=40, rise_grid=4)
