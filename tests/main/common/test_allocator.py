"""Freed memory is kept for the next tensors, where glibc gives out the memory and nobody has set it up."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from ltx.main.common.devices import keep_freed_memory

ROOT = Path(__file__).resolve().parents[3]
COUNT_FAULTS = """
import resource, sys
from runpy import run_path
run_path("__init__.py")
from ltx.main.common.devices import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [torch.ones(2**25, dtype=torch.uint8) for _ in range(3)]
    del blocks
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")


def run(what: str, env: dict[str, str] | None = None) -> tuple[str, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, what],
        env=clean | (env or {}), cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    kept, faults = done.stdout.split()
    return kept, int(faults)


@needs_glibc
def test_pages_are_cleared_once():
    kept, faults = run("keep")
    assert kept == "True"
    assert faults < run("leave")[1] / 2


@needs_glibc
@pytest.mark.parametrize(
    "setting", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}]
)
def test_what_the_user_has_set_up_stays(setting):
    assert run("keep", setting)[0] == "False"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
