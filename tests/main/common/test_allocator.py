"""Freed memory is kept for the next tensors, where glibc gives out the memory and nobody has set it up."""

import os
import platform
import resource
import sys

import pytest
import torch

from ltx.main.common.devices import keep_freed_memory
from ltx.tests.support.processes import SERVER

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")


def page_faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [torch.ones(2**25, dtype=torch.uint8) for _ in range(3)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def count_faults(results) -> None:
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        del os.environ[name]
    left = page_faults()
    results.send((left, keep_freed_memory(), page_faults()))


@needs_glibc
def test_pages_are_cleared_once():
    ours, theirs = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=count_faults, args=(theirs,))
    process.start()
    left, kept, faults = ours.recv()
    process.join()
    assert kept and faults < left / 2


@pytest.mark.parametrize(
    "setting", [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")]
)
def test_what_the_user_has_set_up_stays(setting, monkeypatch):
    monkeypatch.setenv(*setting)
    assert keep_freed_memory() is False


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
