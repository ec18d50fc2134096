"""The options that change speed: precision, torch.compile, and what a CUDA device wants."""

import ctypes
import importlib.util
import os
import shutil
import sys

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.main.common.threads import choose_threads
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer

# Of malloc.h: parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**30  # bytes


def speed_up(options, explainee: Explainee, explainer: Explainer | None = None) -> None:
    """Readies models that are on their device for `SpeedOptions`.

    The explainer is not compiled here: side by side it runs under `vmap`.

    Raises:
        UserError: `--compile` where PyTorch cannot compile.
    """
    if options.compile:
        check_compiler(explainee.mean.device)
    explainee.speed_up(options.precision, options.compile)
    if explainer is not None:
        explainer.precision = options.precision


def check_compiler(device: torch.device) -> None:
    """Raise `UserError` where torch.compile has no compiler for the device."""
    if device.type == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise UserError("--compile needs a C++ compiler (g++, clang++) on CPUs; install one or leave it out")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError("--compile needs the package triton on CUDA; install it or leave it out")


def pins(device: torch.device | str) -> bool:
    """Return True if images are to be read into pinned memory."""
    return torch.device(device).type == "cuda"


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on the device; from pinned memory, without waiting."""
    return values.to(device, non_blocking=pins(device))


def keep_freed_memory() -> bool:
    """Has glibc keep freed memory for the next tensors instead of returning it to the system at once.

    By default each block from 32 MiB on is mapped anew, and the system clears it page by page: a third of the
    time of scoring photographs on a CPU. LTX gains a twentieth by it, and is left alone. Does nothing where
    there is no glibc, or where the user has set it up (`MALLOC_..._`, `GLIBC_TUNABLES`); results do not
    depend on it.

    Returns:
        Whether it was done.
    """
    if not sys.platform.startswith("linux") or any(
        name == "GLIBC_TUNABLES" or (name.startswith("MALLOC_") and name.endswith("_")) for name in os.environ
    ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, 2 * _LARGEST - 1))


def pick_device(name: str) -> torch.device:
    """`auto` to the best device there is; of several CUDA devices, each process of a launch takes its own.

    Also chooses the number of threads, see `threads`.

    Raises:
        UserError: the device asked for is not there.
    """
    from ltx.main.common.launch import place

    choose_threads()
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise UserError(f"--device {name}: this machine has none that PyTorch can use; try --device auto")
    if name == "cuda" and torch.cuda.device_count() > 1:
        return torch.device(name, place()[2] % torch.cuda.device_count())
    return torch.device(name)


def default_batch(device: torch.device | str) -> int:
    """Images that go through the explainee at once: on CPUs few enough for their caches."""
    return 256 if torch.device(device).type == "cuda" else 32
