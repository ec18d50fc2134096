"""Progress bars, and paths as messages show them."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

_LOG_SECONDS = 30.0


class _Lines:
    """A stream that gets each state of a progress bar as a line of its own."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> None:
        text = text.strip()
        if text:
            self._stream.write(text + "\n")

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def progress_bar(iterable: Iterable | None = None, desc: str | None = None, **arguments) -> "tqdm":
    """A progress bar; where there is no terminal, lines half a minute apart, for a log of days.

    tqdm's environment variable TQDM_MININTERVAL sets other seconds.
    """
    from tqdm import tqdm

    if not sys.stderr.isatty():
        seconds = float(os.environ.get("TQDM_MININTERVAL", _LOG_SECONDS))
        arguments |= {"file": _Lines(sys.stderr), "mininterval": seconds, "maxinterval": seconds}
    return tqdm(iterable, desc, **arguments)


def inner_bar(iterable: Iterable | None = None, **arguments) -> "tqdm":
    """A progress bar inside another one: gone when it is done, and not shown where there is no terminal.

    A pipe or a file keeps every line, and of a bar that is wiped away an empty one.
    """
    from tqdm import tqdm

    return tqdm(iterable, leave=False, disable=None, **arguments)


def display_path(path: str | Path) -> str:
    """Relative to the working directory where it lies below it, for messages."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
