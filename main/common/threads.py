"""Threads of PyTorch: as many as the cores that this process may use."""

import functools
import logging
import math
import os
from pathlib import Path

import torch

from ltx.main.common import control_groups

log = logging.getLogger(__name__)

# The user's own choice.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@functools.cache  # chosen and said once
def choose_threads() -> int:
    """Lower PyTorch's threads to the cores that are free to this process, and log their number.

    PyTorch counts the cores of the machine or of the affinity and knows of no quota, and threads beyond it
    wait for each other. `OMP_NUM_THREADS` and `MKL_NUM_THREADS` win, and the number is never raised.
    """
    given = [f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name)]
    cores, why = free_cores()
    threads = torch.get_num_threads()
    if given:
        why = " ".join(given)
    elif cores < threads:
        threads = cores
        torch.set_num_threads(threads)
    log.info("threads: %d (%s)", threads, why)
    return threads


def free_cores(root: Path = control_groups.ROOT, own: Path = control_groups.OWN) -> tuple[int, str]:
    """Return the cores that this process may use, at least 1, and what says so.

    Args:
        root: where control groups are mounted.
        own: lists those of this process.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(kind, level) for kind, level in control_groups.levels(("", "cpu"), root, own)]
    quota = min(quotas, default=math.inf)
    if quota < affinity:
        return max(1, int(quota)), f"{quota:g} of {affinity} cores by the control group's quota"
    return affinity, f"{affinity} of the machine's {os.cpu_count()} cores"


def _quota(kind: str, level: Path) -> float:
    """Return the cores that a control group may use, infinite where it sets no limit."""
    try:
        if kind:
            quota, period = ((level / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        else:
            quota, period = (level / "cpu.max").read_text().split()
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or no limit ("max")
        return math.inf
    return cores if cores > 0 else math.inf
