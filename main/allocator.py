"""How the C library hands out the memory of tensors on the CPU."""

import ctypes
import os
import sys

# Of malloc.h: parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**30  # bytes


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
