"""From a backbone's features to mask logits: the head, the class that is asked about, the layout."""

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from ltx.models.backbones import token_grid
from ltx.models.heads import StageHead

if TYPE_CHECKING:
    from ltx.models.explainer import Explainer

_MAP_BIAS = -2.0  # of a class activation map, positive on most of an image, leaves the peaks


def are_tokens(backbone: nn.Module, features: Tensor) -> bool:
    """Return whether features are tokens (B, N, d) or (B, h, w, d), not a feature map (B, d, h, w)."""
    return features.dim() == 3 or (features.dim() == 4 and getattr(backbone, "output_fmt", "NCHW") == "NHWC")


def make_head(features: Tensor, finer: list[Tensor], has_tokens: bool, scale: int) -> nn.Module:
    """A fresh head for such features, and for those of earlier stages where it reads them.

    Args:
        features: the backbone's last ones.
        finer: of earlier stages.
        has_tokens: see `are_tokens`.
        scale: rows and columns of the mask for each token or last feature.
    """
    if finer:
        return StageHead([features.shape[1], *(stage.shape[1] for stage in finer)], scale)
    if not has_tokens:
        return nn.Conv2d(features.shape[1], scale**2, kernel_size=1)
    dim = features.shape[-1]
    return nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, scale**2))


def silence(head: nn.Module) -> None:
    """Lets a fresh head start at a constant: the class activation map alone makes the mask."""
    last = [module for module in head.modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, _MAP_BIAS)


def mask_logits(
    explainer: "Explainer", features: Tensor, finer: list[Tensor], classes: Tensor | None
) -> Tensor:
    """Features as the backbone gives them to mask logits (B, 1, h, w)."""
    if features.dim() == 3:
        features = features[:, getattr(explainer.backbone, "num_prefix_tokens", 0) :]
    shift, scale = None, explainer.mask_scale
    if explainer.condition is not None:
        features, finer, shift = _asked(explainer, features, finer, classes)
    if finer:
        logits = explainer.head(features, finer)
    else:
        logits = _as_map(explainer, explainer.head(features))
        logits = F.pixel_shuffle(logits, scale) if scale > 1 else logits
    if shift is None:
        return logits
    shift = _as_map(explainer, shift)
    if scale > 1:
        shift = F.interpolate(shift, logits.shape[-2:], mode="bilinear", align_corners=False)
    return logits + shift


def _as_map(explainer: "Explainer", values: Tensor) -> Tensor:
    """Values in the head's own layout to (B, n, h, w)."""
    if not explainer.has_tokens:
        return values
    if values.dim() == 4:
        return values.permute(0, 3, 1, 2)
    grid = token_grid(explainer.backbone, explainer.name, values.shape[1])
    return values.transpose(1, 2).unflatten(2, grid)


def _asked(
    explainer: "Explainer", features: Tensor, finer: list[Tensor], classes: Tensor
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Features for each class that is asked about; what to add to their logits, in the head's layout."""
    if len(classes) != len(features):
        times = len(classes) // len(features)
        features, *finer = (values.repeat_interleave(times, 0) for values in (features, *finer))
    axis = -1 if explainer.has_tokens else 1
    features, shift = explainer.condition(features.movedim(axis, -1), classes)
    return features.movedim(-1, axis), finer, shift.movedim(-1, axis)
