"""Any function as a baseline: it then has a name like the others, and is scored like them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ltx.config import UserError
from ltx.main.baselines.base import Baseline, Batch
from ltx.main.baselines.methods import BASELINES
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee


def from_callable(function: Callable, source: str = "") -> Baseline:
    """A baseline from `function(model, inputs, targets) -> maps`, the form that most tools share.

    Args:
        function: from the explainee's own module, normalised images (B, C, H, W) and classes (B,) to maps
            (B, H, W), (B, 1, H, W) or (B, C, H, W), a tensor or an array; those of several channels count by
            the sum of their absolute values.
        source: who defined it, for tables.

    Returns:
        The baseline; it raises `UserError` where the maps have another shape or are not finite.
    """
    name = getattr(function, "__name__", "a function")

    def compute(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
        inputs = ((batch.images - explainee.mean) / explainee.std).detach()
        maps = function(explainee.model, inputs, batch.classes)
        maps = torch.as_tensor(np.asarray(maps) if not isinstance(maps, Tensor) else maps).detach()
        if maps.dim() == 4:
            maps = maps[:, 0] if maps.shape[1] == 1 else maps.abs().sum(1)
        wanted = (len(inputs), *inputs.shape[-2:])
        if tuple(maps.shape) != wanted:
            raise UserError(f"baseline '{name}' gives maps of {tuple(maps.shape)}; wanted {wanted}")
        if not maps.isfinite().all():
            raise UserError(f"baseline '{name}' gives NaN or infinite maps")
        return maps.to(batch.images)

    return Baseline(compute, source or f"{name}, given from Python")


def add_baseline(name: str, function: Callable, source: str = "") -> None:
    """Makes a function known to `run_baselines` under a name, see `from_callable`.

    Raises:
        UserError: the name is taken, or none that a mask file can carry.
    """
    if name in BASELINES or not name.isidentifier():
        raise UserError(f"baseline '{name}': the name is taken, or no word of letters, digits and '_'")
    BASELINES[name] = from_callable(function, source)
