"""Any function as a baseline, scored like the others."""

import functools
import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltx.config import UserError
from ltx.main.baselines.base import Baseline, Batch
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


def is_named(method: str) -> bool:
    """Return whether a method is `module:function`."""
    return ":" in method


def short_name(method: str) -> str:
    """Return the function's own name, which its maps get in mask files."""
    return method.rpartition(":")[2].replace(".", "_")


@functools.cache
def from_name(method: str) -> Baseline:
    """Return the baseline of `module:function`; modules of the working folder come first.

    Raises:
        UserError: no such module or function, or a module that cannot be imported.
    """
    return from_callable(_found(method), method)


def code_sha256(method: str) -> str:
    """Return the hash of the file that holds `module:function`, empty where there is none."""
    module = sys.modules.get(getattr(_found(method), "__module__", ""))
    path = getattr(module, "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""


def _found(method: str) -> Callable:
    module_name, _, name = method.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a module may do anything while it is imported
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(
            f"--method {method}: {reason}; wanted module:function, the module in {Path.cwd()} or installed"
        ) from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(found):
        raise UserError(f"--method {method}: a {type(found).__name__} cannot be called")
    return found
