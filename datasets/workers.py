"""Processes that read images for a run: whether this machine can have them, and what it means if one dies."""

import logging
import multiprocessing
import signal
import threading

import torch

log = logging.getLogger(__name__)

_warned: set[str] = set()


def possible_workers(wanted: int) -> int:
    """`wanted`, or 0 with a warning where processes cannot share memory (no /dev/shm, a read-only one).

    Images are then read in this process, with the same results.
    """
    if wanted == 0:
        return 0
    try:
        multiprocessing.get_context().Lock()
        torch.empty(1).share_memory_()
    except (OSError, RuntimeError) as error:
        warn_once(f"no shared memory for processes that read images ({error}); this process reads them")
        return 0
    return wanted


def warn_once(message: str) -> None:
    """Warns, but not again for each mask file of a run."""
    if message not in _warned:
        log.warning("%s", message)
        _warned.add(message)


def out_of_shared_memory(error: RuntimeError) -> bool:
    """Return whether a worker process failed because /dev/shm is full."""
    return "shared memory" in str(error) and "No space left" in str(error)


def dead_worker(error: RuntimeError) -> str | None:
    """Return the message for an error that says that a worker process has died, else None.

    PyTorch raises it wherever the main thread is when the process ends, not only where images are read, and
    would again for each one that ends after it; from here on it no longer does.
    """
    if "DataLoader worker" not in str(error) or "(pid" not in str(error):
        return None
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    first = str(error).strip().splitlines()[0].rstrip(". ")
    return (
        f"a process that reads images died ({first}); the machine may be out of memory or of /dev/shm; the "
        "same command resumes from what was written (--num-workers 0 needs no such processes)"
    )
