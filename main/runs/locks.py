"""Claims on parts of a folder, so that no two processes do the same work at the same time.

A claim is a lock on one byte of a hidden file, byte n for part n, such as mask file n of a run. The kernel
releases it when its process ends, however it ends; forked processes do not inherit it.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from ltx.config import UserError
from ltx.models.files import disk_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def claimed(folder: Path, parts: Collection[int], what: str, wait: bool = False) -> Iterator[None]:
    """Hold parts of a folder's work for this process; without parts, do nothing.

    On a disk without locks (some network disks), log a warning and continue.

    Args:
        folder: run folder, or results folder.
        parts: numbers of the parts.
        what: what is in the folder, for the message.
        wait: wait until another process releases them, instead of refusing.

    Raises:
        UserError: another process is at work on one of them, or the folder cannot be written.
    """
    if not parts or fcntl is None:
        yield
        return
    path = Path(folder) / LOCK_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {path}: {disk_error(error)}") from error
    try:
        _lock(handle, folder, parts, what, 0 if wait else fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)  # which gives every lock back


def _lock(handle: int, folder: Path, parts: Collection[int], what: str, how: int) -> None:
    for part in parts:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | how, 1, part)
        except OSError as error:
            if error.errno in _TAKEN:
                raise UserError(
                    f"another process is at work on {what} in {folder}; wait until it has ended, or share "
                    "the work with --num-shards and --shard-index"
                ) from None
            log.warning(
                "%s: this disk knows no locks (%s); see to it that no other process does the same work",
                folder,
                disk_error(error),
            )
            return
