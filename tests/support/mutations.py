"""Valid files made invalid, for fuzz tests: changes that hypothesis draws, and a child process to read in.

Reading happens in a forked child process: a C library that crashes on a damaged file, a reader that hangs and
one that asks for all memory fail one test with a message, and do not take pytest with them.
"""

import copy
import json
import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltx.config import UserError

# The same examples in every run and on every machine, and nothing kept between runs.
DETERMINISTIC = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), max_examples=25
)
N_EXAMPLES = int(os.environ.get("LTX_FUZZ_EXAMPLES", 30))
_SECONDS_EACH = 20
_MEMORY = 8 * 2**30
_ODD = [None, True, 0, -1, 10**12, 1.5, float("nan"), "", "x", [], [1], ["x"], [[]], {}, {"x": 1}]


@dataclass(frozen=True)
class ByteChange:
    """A change of a file's bytes; places are shares of its length, so failures print as a few words."""

    kind: str
    at: float
    to: float
    length: int
    new: bytes

    def apply(self, data: bytearray) -> None:
        """Changes `data` in place."""
        at, to = (int(share * len(data)) for share in sorted((self.at, self.to)))
        if self.kind == "truncate":
            del data[at:]
        elif self.kind == "flip" and at < len(data):
            data[at] ^= self.new[0] or 1
        elif self.kind == "insert":
            data[at:at] = self.new
        elif self.kind == "remove":
            del data[at : at + self.length]
        elif self.kind == "repeat":
            data[at:at] = data[at : at + self.length]
        elif self.kind == "swap" and at + self.length <= to:
            one, other = slice(at, at + self.length), slice(to, to + self.length)
            data[one], data[other] = data[other], data[one]


_SHARES = st.floats(0, 1, exclude_max=True)
_KINDS = st.sampled_from(("truncate", "flip", "insert", "remove", "repeat", "swap"))
byte_changes = st.lists(
    st.builds(ByteChange, _KINDS, _SHARES, _SHARES, st.integers(1, 64), st.binary(min_size=1, max_size=16)),
    min_size=1,
    max_size=3,
)


def changed_bytes(content: bytes, changes: list[ByteChange]) -> bytes:
    """`content` after the changes, one after the other."""
    data = bytearray(content)
    for change in changes:
        change.apply(data)
    return bytes(data)


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """Where a JSON value has parts, the value itself first."""
    found = [path]
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        found += _places(part, (*path, key))
    return found


@dataclass(frozen=True)
class ValueChange:
    """A change of one part of a JSON value: left out, or another value in its place."""

    at: float
    leave_out: bool
    new: Any


value_changes = st.lists(
    st.builds(ValueChange, _SHARES, st.booleans(), st.sampled_from(_ODD)), min_size=1, max_size=2
)


def changed_value(value: Any, changes: list[ValueChange]) -> Any:
    """`value` after the changes; the value itself is never left out."""
    value = copy.deepcopy(value)
    for change in changes:
        places = _places(value)
        path, new = places[int(change.at * len(places))], copy.deepcopy(change.new)
        if not path:
            value = new
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if change.leave_out:
            del parent[path[-1]]
        else:
            parent[path[-1]] = new
    return value


def refuses_or_reads(read: Callable[[], Any]) -> None:
    """Fails where `read()` neither returns nor raises a `UserError` of some words, or takes too long."""

    def too_long(*_):
        raise AssertionError(f"still reading after {_SECONDS_EACH} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_SECONDS_EACH)
    try:
        read()
    except UserError as error:
        assert len(str(error).split()) > 2, f"says too little: '{error}'"
    finally:
        signal.alarm(0)


def in_child(work: Callable[[], None], timeout: float = 240) -> None:
    """Runs `work` in a forked process with limited memory; fails as it fails, and where it dies or hangs."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            work()
        except BaseException:
            theirs.send(traceback.format_exc())

    process = context.Process(target=run)
    process.start()
    theirs.close()
    try:
        failure = ours.recv() if ours.poll(timeout) else f"hung for {timeout} s"
    except EOFError:
        failure = None
    if process.is_alive() and failure and failure.startswith("hung"):
        process.kill()
    process.join()
    assert process.exitcode >= 0 or failure, f"the process that read died of signal {-process.exitcode}"
    assert failure is None, failure


def fuzz(path: Path, read, examples: int = N_EXAMPLES) -> None:
    """Reads `path` with many changes of its bytes."""
    content = path.read_bytes()
    read()  # whole, it can be read

    @settings(DETERMINISTIC, max_examples=examples)
    @given(byte_changes)
    def attempt(changes):
        path.write_bytes(changed_bytes(content, changes))
        refuses_or_reads(read)

    in_child(attempt)
    path.write_bytes(content)


def fuzz_json(path: Path, read, examples: int = 2 * N_EXAMPLES) -> None:
    """Reads `path` with many changes of the values that its JSON holds."""
    content = path.read_bytes()
    value = json.loads(content)

    @settings(DETERMINISTIC, max_examples=examples)
    @given(value_changes)
    def attempt(changes):
        path.write_text(json.dumps(changed_value(value, changes)))
        refuses_or_reads(read)

    in_child(attempt)
    path.write_bytes(content)
