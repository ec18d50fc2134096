"""Backbones of explainers: timm models at the requested size and with the requested weights."""

import copy
import logging
import math

import torch
from torch import nn

from ltx.config import UserError
from ltx.models.explainee import Explainee
from ltx.models.fitting import resize_tokens
from ltx.models.huggingface import Classifier
from ltx.models.registry import InputSpec, input_spec, load_pretrained

log = logging.getLogger(__name__)

# Position, class, distillation and register tokens and the patch embedding are frozen, always (released);
# `embeddings` are those of transformers' models.
_EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token", "norm_pre", "embeddings")
# Parts of a classifier that the features do not pass through.
_HEADS = (
    "head", "head_dist", "head_drop", "classifier", "fc", "fc_norm", "attn_pool", "global_pool", "pre_logits",
    "pooler",
)  # fmt: skip
_FEWEST, _ENOUGH = 3, 4  # rows and columns: what still shows where something lies, what is made of less


def pretrained_backbone(name: str, explainee: Explainee, download: bool) -> tuple[nn.Module, InputSpec]:
    """A pretrained backbone: the explainee's own where the name is the same."""
    if name == explainee.name and hasattr(explainee.model, "forward_features"):
        height, width = explainee.spec.size
        spec = InputSpec((height, width), explainee.spec.mean, explainee.spec.std)
        return copy.deepcopy(explainee.model), spec
    backbone = load_pretrained(name, download=download)
    return backbone, input_spec(backbone)


def has_narrow_strided_convolution(backbone: nn.Module) -> bool:
    """Return whether weight gradients on channels-last input crash PyTorch 2.14 on CPUs (RepVGG, FastViT).

    oneDNN writes past its memory for 1x1 convolutions with a stride and under 16 input channels.
    """
    convolutions = (module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    return any(c.kernel_size == (1, 1) and c.stride != (1, 1) and c.in_channels < 16 for c in convolutions)


def fresh_spec(
    backbone: nn.Module, name: str, spec: InputSpec, explainee: Explainee, size: tuple[int, int] | None
) -> InputSpec:
    """Size and normalisation of an explainer for an explainee, its backbone brought to that size.

    Raises:
        UserError: the backbone cannot take such a size.
    """
    if explainee.channels not in (1, 3):
        spec = InputSpec(spec.size, explainee.spec.mean, explainee.spec.std)
    if size is None:
        return spec
    height, width = (size, size) if isinstance(size, int) else size
    resize_tokens(backbone, name, (height, width))
    return InputSpec((height, width), spec.mean, spec.std)


def larger_size(grid: tuple[int, int], mask_scale: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """A multiple of a size at which a grid has four rows and columns; None where it has at least three."""
    fewest = min(grid) // mask_scale
    if fewest >= _FEWEST:
        return None
    times = math.ceil(_ENOUGH / max(1, fewest))
    return size[0] * times, size[1] * times


def adaptor_for(backbone: nn.Module, channels: int) -> nn.Conv2d | None:
    """A 1x1 convolution from so many channels to the three of a backbone, None where none is needed.

    It starts as timm adapts weights: the channels in turn stand for red, green and blue.
    """
    first = next((part for part in backbone.modules() if isinstance(part, nn.Conv2d)), None)
    if channels in (1, 3) or (first is not None and first.in_channels == channels):
        return None
    adaptor = nn.Conv2d(channels, 3, kernel_size=1, bias=False, dtype=torch.float32)
    with torch.no_grad():
        adaptor.weight.zero_()
        for channel in range(channels):
            adaptor.weight[channel % 3, channel] = 3 / channels
    return adaptor


def freeze(
    backbone: nn.Module, name: str, has_tokens: bool, n_first_layers: int, is_plain_transformer: bool
) -> None:
    """Freezes embeddings, heads, and so many first blocks.

    Raises:
        UserError: there are fewer blocks.
    """
    for key, parameter in backbone.named_parameters():
        parts = key.split(".")[: 3 if isinstance(backbone, Classifier) else 1]
        if any(part in _HEADS or (has_tokens and part in _EMBEDDINGS) for part in parts):
            parameter.requires_grad_(False)
    if not n_first_layers:
        return
    blocks = getattr(backbone, "blocks", None)
    if not is_plain_transformer or blocks is None:
        log.warning("freezing first layers has no effect on '%s'", name)
        return
    if n_first_layers > len(blocks):
        raise UserError(
            f"--explainer-model-n-first-layers-to-freeze {n_first_layers}: '{name}' has {len(blocks)} layers"
        )
    for block in blocks[:n_first_layers]:
        block.requires_grad_(False)


def token_grid(backbone: nn.Module, name: str, n_tokens: int) -> tuple[int, int]:
    """Rows and columns of the tokens: the patch embedding's own grid, else square.

    One token is a class token (PiT gives no other), and no map.

    Raises:
        UserError: they fit no grid.
    """
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    side = math.isqrt(n_tokens)
    for h, w in (grid, (side, side)) if grid else ((side, side),):
        if h * w == n_tokens > 1:
            return int(h), int(w)
    raise UserError(f"'{name}' gives {n_tokens} tokens, which fit no grid; choose another explainer")
