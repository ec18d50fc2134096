"""Masks finer than the backbone's last features.

A transformer's tokens all lie on one grid, so its head gives each of them several mask values (pixel shuffle,
Shi et al. 2016). A CNN has seen finer grids on the way: its last features and those of earlier stages are
brought to one width, added up on the finest grid, and read by a small convolution (feature pyramids, Lin et
al. 2017).
"""

from torch import Tensor, nn
from torch.nn import functional as F

_WIDTH = 64


class StageHead(nn.Module):
    """Feature maps of several stages to mask logits `scale` times as fine as the first.

    Args:
        channels: of the last features, then of the earlier stages in any order.
        scale: rows and columns of the mask for each of the last features.
    """

    def __init__(self, channels: list[int], scale: int):
        super().__init__()
        self.scale = scale
        self.lateral = nn.ModuleList(nn.Conv2d(n, _WIDTH, kernel_size=1) for n in channels)
        self.out = nn.Conv2d(_WIDTH, 1, kernel_size=3, padding=1)

    def forward(self, last: Tensor, finer: list[Tensor]) -> Tensor:
        """Last features (B, C, h, w) and those of earlier stages to logits (B, 1, scale * h, scale * w)."""
        size = tuple(self.scale * side for side in last.shape[-2:])
        total = sum(
            F.interpolate(lateral(stage), size, mode="bilinear", align_corners=False)
            for lateral, stage in zip(self.lateral, (last, *finer), strict=True)
        )
        return self.out(F.gelu(total))


def finer_stages(backbone: nn.Module, images: Tensor, rows: int, scale: int) -> list[int]:
    """Indices of the last stage on each grid that is 2 ... `scale` times as fine as the last features.

    Args:
        backbone: a timm CNN.
        images: (B, 3, H, W) that it can take.
        rows: of its last features.
        scale: of the mask.

    Returns:
        Indices for timm's `forward_intermediates`, none where the model lacks it (the head then gives each of
        the last features several values).
    """
    if scale == 1 or not hasattr(backbone, "forward_intermediates"):
        return []
    stages = backbone.forward_intermediates(images, intermediates_only=True)
    wanted = [rows * 2**k for k in range(1, scale.bit_length())]
    last = {stage.shape[-2]: i for i, stage in enumerate(stages) if stage.shape[-2] in wanted}
    return sorted(last.values())


def activate(logits: Tensor, activation: str) -> Tensor:
    """Head outputs (B, 1, h, w) to token masks.

    Args:
        logits: (B, 1, h, w).
        activation: one of `config.ACTIVATIONS`. `relu` is cut at 1, and `softmax` (over the tokens) is
            divided by its maximum. The published code does neither: `relu_released` has no upper bound, and
            the tokens of `softmax_released` sum to 1, so that it keeps little of any image.
    """
    if activation == "sigmoid":
        return logits.sigmoid()
    if activation == "relu":
        return logits.clamp(0, 1)
    if activation == "relu_released":
        return logits.relu()
    weights = logits.flatten(1).softmax(1)
    if activation == "softmax":
        weights = weights / weights.amax(1, keepdim=True)
    return weights.view_as(logits)
