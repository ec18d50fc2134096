"""Threads from the cores that are free to the process."""

import logging
import os

import pytest
import torch

from ltx.main.common import threads
from ltx.main.common.threads import choose_threads, free_cores


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Control groups as files, on a machine with 8 cores of which 6 are this process's."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def write(line, files):
        own, root = tmp_path / "cgroup", tmp_path / "root"
        own.write_text(line + "\n")
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text + "\n")
        return root, own

    return write


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/job/step", {"job/step/cpu.max": "max 100000", "job/cpu.max": "250000 100000"}, 2),
        ("0::/job", {"job/cpu.max": "50000 100000"}, 1),
        ("0::/job", {"job/cpu.max": "900000 100000"}, 6),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 6),
        ("0::/job", {"job/cpu.max": "nonsense"}, 6),
        ("0::/nowhere", {}, 6),
    ],
)
def test_quota_and_affinity(group, line, files, cores):
    found, why = free_cores(*group(line, files))
    assert found == cores
    assert "cores" in why and ("quota" in why) == (cores != 6)


def test_without_control_groups_and_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert free_cores(tmp_path, tmp_path / "none")[0] == 5


@pytest.fixture
def torch_threads(monkeypatch):
    """PyTorch takes 4 threads; what is set is noted."""
    taken = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    choose_threads.cache_clear()
    yield taken
    choose_threads.cache_clear()


@pytest.mark.parametrize(("cores", "taken"), [(2, [2]), (4, []), (16, [])])
def test_threads_are_lowered_and_never_raised(torch_threads, monkeypatch, caplog, cores, taken):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(threads, "free_cores", lambda: (cores, f"{cores} cores"))
    assert choose_threads() == choose_threads() == min(4, cores)
    assert torch_threads == taken
    assert caplog.messages == [f"threads: {min(4, cores)} ({cores} cores)"]


def test_the_users_number_wins(torch_threads, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(threads, "free_cores", lambda: (1, "1 core"))
    assert choose_threads() == 4 and torch_threads == []
    assert caplog.messages == ["threads: 4 (OMP_NUM_THREADS=3)"]
