"""LTX on digits for as long as asked, shard after shard in one process: do memory and speed stay flat?

    python tests/faults/long_run.py --minutes 30

Each round fills a run folder, shard by shard, and scores it; the next round takes another folder and seed. A
line per interval: resident memory, open files, images per second, and the size of the log. Nothing is tuned
for the test: the script's `main` is called as its command line would, reading processes included.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.main.common import cli
from ltx.main.seg_classification import run_seg_cls_opt
from ltx.main.seg_classification.options import FinetuneOptions

_SHARDS, _IMAGES, _UNIT = 8, 128, 8


@dataclass(frozen=True)
class Reading:
    """What was measured at the end of an interval.

    Attributes:
        minutes: since the start.
        memory: resident, in MB.
        open_files: of this process.
        speed: images per second within the interval, scores included.
        log: bytes that were written to the log since the start.
    """

    minutes: float
    memory: float
    open_files: int
    speed: float
    log: int


def shards(folder: Path):
    """Runs shard after shard without end, and yields the number of images of each."""
    number = 0
    while True:
        run, shard = divmod(number, _SHARDS)
        argv = [
            "--explainer-model-name", "vit_digits", "--explainee-model-name", "vit_digits", "--images-path",
            "digits", "--num-workers", "1", "--seed", str(run), "--max-images", str(_IMAGES), "--unit-size",
            str(_UNIT), "--num-shards", str(_SHARDS), "--shard-index", str(shard), "--default-root-dir",
            str(folder), "--run-name", str(run),
        ]  # fmt: skip
        run_seg_cls_opt.main(cli.parse(FinetuneOptions, argv))
        yield _IMAGES // _SHARDS
        if shard == _SHARDS - 1:
            shutil.rmtree(folder / str(run))
        number += 1


def measure(minutes: float, interval: float, folder: Path, log) -> list[Reading]:
    """Runs for so many minutes and prints a line per interval (seconds, at least one shard)."""
    readings, start = [], time.monotonic()
    begin, images = start, 0
    print("minutes  memory MB  open files  images/s  log kB", file=sys.__stdout__, flush=True)
    for done in shards(folder):
        images, now = images + done, time.monotonic()
        if now - begin < interval:
            continue
        log.flush()
        readings.append(
            Reading((now - start) / 60, _resident(), _open_files(), images / (now - begin), log.tell())
        )
        one = readings[-1]
        print(
            f"{one.minutes:7.1f}  {one.memory:9.1f}  {one.open_files:10d}  {one.speed:8.2f}  "
            f"{one.log / 1000:6.1f}",
            file=sys.__stdout__,
            flush=True,
        )
        begin, images = now, 0
        if now - start >= 60 * minutes:
            return readings
    raise AssertionError("unreachable")


def _resident() -> float:
    """Resident memory of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def summary(readings: list[Reading]) -> dict[str, float]:
    """Growth after the warm-up (the first fifth), and speed of the first and last quarter after it."""
    rest = readings[len(readings) // 5 :]
    quarter = max(1, len(rest) // 4)
    first, last = rest[:quarter], rest[-quarter:]

    def median(some: list[Reading], name: str) -> float:
        return statistics.median(getattr(one, name) for one in some)

    return {
        "minutes": round(readings[-1].minutes, 1),
        "memory_mb": round(median(first, "memory"), 1),
        "memory_growth_mb": round(median(last, "memory") - median(first, "memory"), 1),
        "open_files_growth": round(median(last, "open_files") - median(first, "open_files")),
        "images_per_second_first_quarter": round(median(first, "speed"), 2),
        "images_per_second_last_quarter": round(median(last, "speed"), 2),
        "log_kb_per_hour": round(readings[-1].log / 1000 / readings[-1].minutes * 60, 1),
    }


def main() -> None:
    """Measures and prints the closing line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--minutes", type=float, default=30)
    flags.add_argument("--interval", type=float, default=30, help="seconds between lines")
    flags.add_argument("--log", type=Path, help="keep what the runs print in this file")
    options = flags.parse_args()
    with tempfile.TemporaryDirectory(prefix="ltx-long-") as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        log = stack.enter_context(open(options.log or folder / "log", "w"))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        readings = measure(options.minutes, options.interval, folder, log)
    print(json.dumps({"results": {"long_run": summary(readings)}}))


if __name__ == "__main__":
    main()
