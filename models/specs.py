"""Size and normalisation that a network wants its images in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ltx.config import CENTRE_CROP, CropSize, UserError


@dataclass(frozen=True)
class InputSpec:
    """Input of a backbone: (H, W), and the mean and std of its training, on [0, 1] pixels."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def adjusted(
    spec: InputSpec,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: Sequence[int] | int | None = None,
    resize: str | None = None,
    crop: tuple[float, str] = (0.875, "bicubic"),
) -> InputSpec:
    """An `InputSpec` with what is given changed.

    Args:
        spec: of the model.
        mean: one value per channel, or one for all.
        std: likewise.
        size: (H, W), or one side of a square.
        resize: `direct` or `centre-crop`.
        crop: share of the resized side that the crop keeps, and interpolation.

    Raises:
        UserError: values out of range.
    """
    n = len(spec.mean)
    given: dict[str, Any] = {}
    for flag, values in (("mean", mean), ("std", std)):
        values = (values,) if isinstance(values, int | float) else values
        if values is not None:
            values = tuple(map(float, values)) * (n if len(values) == 1 else 1)
            if len(values) != n or max(values) > 1 or min(values) < (1e-6 if flag == "std" else -1):
                raise UserError(f"--{flag} {values}: wanted {n} values (or one for all) for pixels in [0, 1]")
            given[flag] = values
    sides = spec.size if size is None else as_size(size)
    given["size"] = CropSize(sides, *crop) if resize == CENTRE_CROP else tuple(sides)
    return replace(spec, **given)


def as_size(size: Sequence[int] | int) -> tuple[int, int]:
    """(H, W) of one side or two.

    Raises:
        UserError: anything else.
    """
    sides = (size,) if isinstance(size, int) else tuple(size)
    sides = sides * 2 if len(sides) == 1 else sides
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(f"--input-size {' '.join(map(str, sides))}: wanted one side, or height and width")
    return sides


def crop_of(model: nn.Module) -> tuple[float, str]:
    """Share that a timm model's centre crop keeps, and its interpolation."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return float(cfg.get("crop_pct") or 0.875), str(cfg.get("interpolation") or "bicubic")
