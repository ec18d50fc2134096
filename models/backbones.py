"""Backbones of explainers: timm models at the requested size and with the requested weights."""

import copy

from torch import nn

from ltx.config import UserError
from ltx.models.explainee import Explainee
from ltx.models.registry import InputSpec, input_spec, load_pretrained


def pretrained_backbone(name: str, explainee: Explainee, download: bool) -> tuple[nn.Module, InputSpec]:
    """A pretrained backbone: the explainee's own where the name is the same."""
    if name == explainee.name and hasattr(explainee.model, "forward_features"):
        return copy.deepcopy(explainee.model), explainee.spec
    backbone = load_pretrained(name, download=download)
    return backbone, input_spec(backbone)


def resize_tokens(backbone: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Lets a transformer take images of another size; feature maps need nothing."""
    if not hasattr(backbone, "set_input_size"):
        return
    try:
        backbone.set_input_size(img_size=size)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"'{name}' cannot take images of {size[0]} x {size[1]}: {error}") from error


def has_narrow_strided_convolution(backbone: nn.Module) -> bool:
    """Return whether weight gradients on channels-last input crash PyTorch 2.14 on CPUs (RepVGG, FastViT).

    oneDNN writes past its memory for 1x1 convolutions with a stride and under 16 input channels.
    """
    convolutions = (module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    return any(c.kernel_size == (1, 1) and c.stride != (1, 1) and c.in_channels < 16 for c in convolutions)
