"""The start of a command does not load PyTorch's compiler."""

import sys
from types import SimpleNamespace

import torch

from ltx.main.common import light
from ltx.tests.conftest import ROOT

CODE = """
import sys
from runpy import run_path
run_path({root!r} + "/__init__.py")
from ltx.main.common.light import load_timm
load_timm()
import torch, torchvision.ops.roi_align
from ltx.models.registry import input_size
assert input_size("efficientnet_lite0") == (224, 224)
assert not {{"torch._dynamo", "torch._dynamo.utils", "sympy", "matplotlib.pyplot"}} & set(sys.modules)
assert torch.compiler.disable.__module__ == "torch.compiler"
"""


def test_commands_start_without_the_compiler(tmp_path, run_process):
    """In a process of its own, since this one may have loaded it."""
    script = tmp_path / "start.py"
    script.write_text(CODE.format(root=str(ROOT)))
    result = run_process(script)
    assert result.code == 0, result.err


def test_what_is_asked_of_the_compiler_later_is_answered(monkeypatch):
    real = SimpleNamespace(is_compile_supported=lambda device: device == "cuda", other=7)
    monkeypatch.setattr(light, "_compiler", lambda: real)
    stand_in = light._StandIn("torch._dynamo.utils")
    assert stand_in.is_compile_supported("cuda") and not stand_in.is_compile_supported("cpu")
    assert stand_in.other == 7
    assert not hasattr(stand_in, "__path__")


def test_nothing_is_done_where_it_is_loaded():
    before, disable = set(sys.modules), torch.compiler.disable
    light.load_timm()
    assert set(sys.modules) == before and torch.compiler.disable is disable


def test_decorators_leave_functions_as_they_are():
    assert light._as_it_is(len) is len
    assert light._as_it_is(recursive=False)(len) is len
