"""torchvision and timm without PyTorch's compiler, for commands that compile nothing."""

import sys
from importlib import import_module
from types import ModuleType

import torch

_COMPILER = "torch._dynamo.utils"


def load_timm() -> None:
    """Load torchvision's transforms and timm; the compiler that they ask for is loaded once it is used.

    For one function and a decorator both load the compiler with SymPy and more, 900 modules and a quarter of
    the start of a command. Call it before the first import of either; where one of them or the compiler is
    loaded, nothing is done. For processes of ours alone: functions that are to stay out of `torch.compile`
    are not marked so.
    """
    if {"torchvision", "timm", "torch._dynamo"} & set(sys.modules):
        return
    disable = torch.compiler.disable
    sys.modules[_COMPILER] = stand_in = _StandIn(_COMPILER)
    torch.compiler.disable = _as_it_is
    try:
        import_module("torchvision.transforms.v2")
        import_module("timm")
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]


class _StandIn(ModuleType):
    """The compiler's module: one function as a call to its own, and the module itself for all else."""

    def __getattr__(self, name: str):
        if name.startswith("__"):  # the import system's questions
            raise AttributeError(name)
        if name == "is_compile_supported":
            return lambda *args: _compiler().is_compile_supported(*args)
        return getattr(_compiler(), name)


def _compiler() -> ModuleType:
    if isinstance(sys.modules.get(_COMPILER), _StandIn):
        del sys.modules[_COMPILER]
    return import_module(_COMPILER)


def _as_it_is(fn=None, *args, **kwargs):
    """Leave a function as it is, as a decorator with or without arguments."""
    return fn if callable(fn) else _as_it_is
