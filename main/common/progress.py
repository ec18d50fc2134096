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
    """A stream that writes each state of a progress bar as a line."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> None:
        text = text.strip()
        if text:
            self._stream.write(text + "\n")

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def progress_bar(iterable: Iterable | None = None, desc: str | None = None, **arguments) -> "tqdm":
    """Return a progress bar; without a terminal, one that writes a line every half minute.

    tqdm's environment variable TQDM_MININTERVAL sets another interval in seconds.
    """
    from tqdm import tqdm

    if not sys.stderr.isatty():
        seconds = float(os.environ.get("TQDM_MININTERVAL", _LOG_SECONDS))
        arguments |= {"file": _Lines(sys.stderr), "mininterval": seconds, "maxinterval": seconds}
    return tqdm(iterable, desc, **arguments)


def inner_bar(iterable: Iterable | None = None, **arguments) -> "tqdm":
    """Return a progress bar inside another one: cleared when done, and disabled without a terminal."""
    from tqdm import tqdm

    return tqdm(iterable, leave=False, disable=None, **arguments)


def display_path(path: str | Path) -> str:
    """Return a path for messages: relative to the working directory if it lies inside."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
