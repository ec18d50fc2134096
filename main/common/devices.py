"""The options that change speed: precision, torch.compile, and what a CUDA device wants."""

import importlib.util
import shutil

import torch
from torch import Tensor

from config import UserError
from models.explainee import Explainee
from models.explainer import Explainer


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
    """Raises `UserError` where torch.compile has no compiler for the device."""
    if device.type == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise UserError("--compile needs a C++ compiler (g++, clang++) on CPUs; install one or leave it out")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError("--compile needs the package triton on CUDA; install it or leave it out")


def pins(device: torch.device | str) -> bool:
    """Whether images are to be read into pinned memory."""
    return torch.device(device).type == "cuda"


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on the device; from pinned memory, without waiting."""
    return values.to(device, non_blocking=pins(device))
