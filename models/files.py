"""Atomic writing of files."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from ltx.config import UserError

_TEMPORARY = ".tmp"


def replace_file(path: str | Path, write: Callable[[str], object]) -> None:
    """Call `write(temporary path)` beside `path`, flush it to disk and rename it into place.

    A reader sees the old file or the new one, never a part; what a killed process leaves behind is a hidden
    temporary file, never a damaged `path`.

    Raises:
        UserError: the disk is full, the folder is read-only, ...
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
        os.close(handle)
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except Exception as error:
        reason = disk_error(error)
        if reason is None:
            raise
        raise UserError(
            f"cannot write {path}: {reason}; what was written before is whole, and the same command resumes "
            "from there"
        ) from error


def remove_leftovers(path: str | Path) -> None:
    """Remove what killed processes left of `path` while they wrote it; none may be writing it now.

    Args:
        path: the file; its name may be a pattern.
    """
    path = Path(path)
    for temporary in path.parent.glob(f".{path.name}.*{_TEMPORARY}"):
        temporary.unlink(missing_ok=True)


def disk_error(error: BaseException) -> str | None:
    """Return the operating system's message behind an error; libraries hide it in several ways."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return os.strerror(seen.errno)
        number = re.search(r"(?:os error |errno = )(\d+)", str(seen))
        if number is not None:
            return os.strerror(int(number[1]))
        seen = seen.__cause__ or seen.__context__
    return None
