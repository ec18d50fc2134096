"""The layer that class activation maps are read from, for any timm model, and its values as a feature map.

Token models: the first norm of the last block, whose patch tokens still reach the class token. Models with a
feature map (CNNs, Swin, ConvNeXt, ...): that map, whether its channels come first or last.
"""

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ltx.config import UserError
from ltx.models.explainee import Explainee


class CamModel(nn.Module):
    """An explainee cut in two: `tail(prefix(images))` are its logits, and `layer` lies in the tail.

    Args:
        explainee: images to logits.

    Attributes:
        layer: module whose output is the layer of the class activation maps.

    Raises:
        UserError: the model has neither tokens nor a feature map.
    """

    def __init__(self, explainee: Explainee):
        super().__init__()
        self.explainee = explainee
        model = explainee.model
        if not hasattr(model, "forward_features") or not hasattr(model, "forward_head"):
            raise UserError(
                f"class activation maps need timm's forward_features and forward_head, which "
                f"'{explainee.name}' has not"
            )
        with torch.no_grad():
            zeros = torch.zeros(1, 3, *explainee.input_size, device=explainee.mean.device)
            features = model.forward_features(zeros)
        self.has_tokens = features.dim() == 3
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        # A ViT's last block can be run alone; other token models are run whole.
        self.last_block = model.blocks[-1] if isinstance(model, VisionTransformer) else None
        if self.has_tokens:
            self.n_prefix = getattr(model, "num_prefix_tokens", 0)
            self.grid = token_grid(model, features.shape[1] - self.n_prefix, explainee.input_size)
            last = model.blocks[-1]
            self.layer = last.norm1 if hasattr(last, "norm1") else model.blocks[-2]
        else:
            self.layer = nn.Identity()

    def prefix(self, images: Tensor) -> Tensor:
        """The values before the tail: features, tokens before a ViT's last block, or normalised images."""
        normalised = (images - self.explainee.mean) / self.explainee.std
        if not self.has_tokens:
            return self.explainee.model.forward_features(normalised)
        return normalised if self.last_block is None else self._before_last_block(normalised)

    def tail(self, state: Tensor) -> Tensor:
        """From `prefix`'s values to logits, through `layer`."""
        model = self.explainee.model
        if not self.has_tokens:
            return model.forward_head(self.layer(state))
        if self.last_block is None:
            return model(state)
        return model.forward_head(model.norm(self.last_block(state)))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to logits (B, C)."""
        return self.tail(self.prefix(images))

    def to_map(self, values: Tensor) -> Tensor:
        """The layer's output as feature maps (B, C, h, w)."""
        if self.has_tokens:
            return values[:, self.n_prefix :].transpose(1, 2).unflatten(2, self.grid)
        return values.permute(0, 3, 1, 2) if self.channels_last else values

    def _before_last_block(self, normalised: Tensor) -> Tensor:
        model = self.explainee.model
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(normalised))))
        for block in model.blocks[:-1]:
            tokens = block(tokens)
        return tokens


def token_grid(model: nn.Module, n_tokens: int, input_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patch tokens: the patch embedding's own, else those with the image's proportions.

    Raises:
        UserError: no grid fits.
    """
    side = math.isqrt(n_tokens * input_size[0] // input_size[1])
    grids = (
        getattr(getattr(model, "patch_embed", None), "grid_size", None),
        (side, n_tokens // max(side, 1)),
    )
    for grid in grids:
        if grid and grid[0] * grid[1] == n_tokens:
            return tuple(grid)
    raise UserError(f"cannot arrange {n_tokens} tokens in a grid for images of {input_size}")
