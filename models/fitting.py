"""Weights as training scripts leave them, fitted to a model: prefixes, extra entries, what does not fit."""

import logging
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from ltx.config import UserError

log = logging.getLogger(__name__)

# What wrappers put before every name, alone or nested.
_PREFIX = re.compile(r"((module|model|_orig_mod|backbone|net|network|encoder|classifier|ema)\.)+")
# What training keeps beside a model: losses, metrics, heads for training alone, a count of averages.
_BESIDE = re.compile(r"criterion|loss|metric|train_|val_|test_|aux|AuxLogits|n_averaged|logit_scale")
_COUNTS = ("total_ops", "total_params")  # of thop, in every layer
_SHOWN = 5


def without_prefix(weights: dict[str, Tensor], own: list[str]) -> dict[str, Tensor]:
    """Weights under a model's own names, where a wrapper has put a prefix before them.

    Args:
        weights: by name, as they were read.
        own: the model's names.
    """
    prefixes = {""}
    for first in own[:1] + own[-1:]:
        prefixes |= {key.removesuffix(first) for key in weights if key.endswith(first)}
    known = [prefix for prefix in prefixes if not prefix or _PREFIX.fullmatch(prefix)]
    best = max(known, key=lambda prefix: (sum(prefix + key in weights for key in own), -len(prefix)))
    if not best:
        return weights
    taken = {key.removeprefix(best): value for key, value in weights.items() if key.startswith(best)}
    log.info("names without '%s'", best)
    return taken | {key: value for key, value in weights.items() if not key.startswith(best)}


def fit(model: nn.Module, weights: dict[str, Tensor], name: str, path: Path) -> None:
    """Load weights in place, in the model's own types.

    Entries that belong to no part of the model (a loss, an auxiliary head) are left out, and named.

    Raises:
        UserError: a weight is missing, of another shape, or of a larger model.
    """
    own = model.state_dict()
    weights = {key: value for key, value in weights.items() if not key.endswith(_COUNTS)}
    missing = [key for key in own if key not in weights]
    extra = [key for key in weights if key not in own]
    if missing:
        beside = f", but {_some(extra)}" if extra else ""
        raise UserError(f"{path} does not fit '{name}': it has no {_some(missing)}{beside}")
    for key, value in own.items():
        if weights[key].shape != value.shape:
            advice = "; pass its --input-size" if "pos_embed" in key else ""
            raise UserError(
                f"{path} does not fit '{name}': '{key}' has shape {tuple(weights[key].shape)}, "
                f"wanted {tuple(value.shape)}{advice}"
            )
    foreign = next((key for key in extra if not _BESIDE.match(key)), None)
    if foreign is not None:
        raise UserError(f"{path} does not fit '{name}': it holds '{foreign}', which the model does not have")
    if extra:
        log.warning(
            "%s also holds %s, which '%s' does not have and which is left out", path, _some(extra), name
        )
    model.load_state_dict({key: weights[key].to(value.dtype) for key, value in own.items()})


def _some(names) -> str:
    names = list(names)
    shown = ", ".join(f"'{key}'" for key in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def resize_tokens(backbone: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Lets a transformer take images of another size; feature maps need nothing.

    Raises:
        UserError: it cannot take such a size.
    """
    if not hasattr(backbone, "set_input_size"):
        return
    try:
        backbone.set_input_size(img_size=tuple(size))
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"'{name}' cannot take images of {size[0]} x {size[1]}: {error}") from error


def outputs_of(model: nn.Module, weights: dict[str, Tensor]) -> int | None:
    """Outputs of a weights file: rows of its classifier; None where it cannot be told."""
    return _side(model, weights, "classifier", 0)


def channels_of(model: nn.Module, weights: dict[str, Tensor]) -> int | None:
    """Input channels of a weights file whose model takes 3; None where it cannot be told."""
    found, own = _side(model, weights, "first_conv", 1), _side(model, model.state_dict(), "first_conv", 1)
    return found if own == 3 else None


def _side(model: nn.Module, weights: dict[str, torch.Tensor], layer: str, axis: int) -> int | None:
    """Length of an axis of a layer's weight, the layer being named in timm's configuration."""
    name = model.pretrained_cfg.get(layer)
    name = name[0] if isinstance(name, tuple | list) else name
    weight = weights.get(f"{name}.weight")
    return None if weight is None or weight.dim() <= axis else weight.shape[axis]
