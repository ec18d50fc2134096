"""Kills the scripts at random moments, repeats their commands, and compares with runs that were not killed.

    python tests/faults/kill.py --kills 5

Pretraining, LTX, evaluation and baselines on digits. Every other kill waits for a file that is being written
and falls into that write; the others come at moments drawn over the work. A kill is survived where the same
command then ends, every array, score and checkpoint equals that of the undisturbed run, no finished work unit
was made again, and the unit that was cut off is all that was computed twice. Exit code 1 where one was not.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from folders import contents, differences, files, is_temporary, stamps

from ltx.config import ROOT

_POLL, _LIMIT = 0.0005, 600.0  # seconds between looks at a folder; the most that one process may take
_DIGITS = ["--explainee-model-name", "vit_digits", "--images-path", "digits", "--num-workers", "1",
           "--device", "cpu"]  # fmt: skip
_PAIR = [*_DIGITS, "--explainer-model-name", "vit_digits"]
_BAR = re.compile(r"([\w -]+):\s+\d+%\|[^|]*\| (\d+)/(\d+)")


@dataclass(frozen=True)
class Stage:
    """A script and a small piece of work for it.

    Attributes:
        script: below main/.
        flags: what it is asked for.
        units: patterns of the files that hold finished work units; none of them may be made again, but for
            `last` ones, written before what finishes their unit (an epoch's picture before its state).
        unit: images (steps, in pretraining) of a work unit, which may be computed twice.
        scores: the script scores a run folder that stands already, instead of filling one.
        below: how many folders below --default-root-dir its run folder lies.
    """

    script: str
    flags: list[str]
    units: tuple[str, ...]
    unit: int
    scores: bool = False
    below: int = 1
    last: int = 0

    def command(self, folder: Path) -> list[str]:
        """The command that works in a folder."""
        place = ["--default-root-dir", str(folder.parents[self.below - 1]), "--run-name", folder.name]
        where = [str(folder)] if self.scores else place
        return [sys.executable, str(ROOT / "main" / self.script), *where, *self.flags]


_SCORES = "results/*/parts/*.npz"
STAGES = {
    "pretraining": Stage(
        "seg_classification/run_seg_cls.py",
        [*_PAIR, "--train-images", "128", "--val-images", "32", "--batch-size", "16", "--n-epochs", "3",
         "--save-every", "4"],
        ("pictures/*.png",), 4, below=2, last=1,
    ),
    "ltx": Stage(
        "seg_classification/run_seg_cls_opt.py",
        [*_PAIR, "--max-images", "16", "--unit-size", "2", "--batch-size", "2",
         "--n_epochs_to_optimize_stage_b", "8"],
        ("masks/*.h5", _SCORES), 2,
    ),
    "evaluation": Stage(
        "perturbation_eval/run_perturbation_eval.py",
        ["--num-workers", "1", "--device", "cpu", "--batch-size", "16"],
        (_SCORES,), 16, scores=True,
    ),
    "baselines": Stage(
        "baselines/run_baselines.py",
        [*_DIGITS, "--method", "random,input_gradient,attention_rollout,rise", "--rise-masks", "100",
         "--max-images", "16", "--unit-size", "2"],
        ("masks/*.h5", _SCORES), 2,
    ),
}  # fmt: skip


@dataclass
class Watched:
    """A process and what was seen of it.

    Attributes:
        process: the process.
        log: file that its output goes to.
        writes: names of the temporary files that were seen.
        began: when its work began, None before.
        ended: when the process had ended.
    """

    process: subprocess.Popen
    log: Path
    writes: set[str] = field(default_factory=set)
    began: float | None = None
    ended: float | None = None

    def bars(self) -> dict[str, tuple[int, int]]:
        """First and last count that each of its progress bars showed."""
        seen: dict[str, tuple[int, int]] = {}
        for name, n, _ in _BAR.findall(self.log.read_text(errors="replace")):
            seen[name.strip()] = (seen.get(name.strip(), (int(n),))[0], int(n))
        return seen


@dataclass
class Work:
    """A stage's undisturbed run, which its killed ones are compared with.

    Attributes:
        stage: the stage.
        start: run folder that each run begins with, or None.
        expected: what the folder holds in the end.
        seconds: from the beginning of the work to the end of the process.
        writes: number of files that were seen while they were written.
    """

    stage: Stage
    start: Path | None
    expected: dict
    seconds: float
    writes: int


def launch(stage: Stage, folder: Path) -> Watched:
    """Starts a stage's command; its output goes beside the folder."""
    log = folder.with_name(f"{folder.name}.{time.monotonic_ns()}.log")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["TQDM_MININTERVAL"] = "0"
    with open(log, "w") as file:
        return Watched(
            subprocess.Popen(stage.command(folder), stdout=file, stderr=file, env=environment, cwd=ROOT), log
        )


def watch(watched: Watched, stage: Stage, folder: Path, is_time=lambda watched: False) -> None:
    """Looks at the folder until the process has ended; kills it as soon as `is_time` says so."""
    limit = time.monotonic() + _LIMIT
    marker = "results/*/options.json" if stage.scores else "run.json"
    while watched.process.poll() is None:
        watched.writes |= {str(path) for path in files(folder) if is_temporary(path)}
        if watched.began is None and next(folder.glob(marker), None) is not None:
            watched.began = time.monotonic()
        if is_time(watched) or time.monotonic() > limit:
            watched.process.kill()
            watched.process.wait()
        time.sleep(_POLL)
    watched.ended = time.monotonic()


def undisturbed(stage: Stage, folder: Path, start: Path | None) -> Work:
    """Runs a stage to its end."""
    prepare(folder, start)
    watched = launch(stage, folder)
    watch(watched, stage, folder)
    if watched.process.returncode != 0:
        sys.exit(f"the undisturbed run failed:\n{watched.log.read_text()[-2000:]}")
    return Work(stage, start, contents(folder), watched.ended - watched.began, len(watched.writes))


def prepare(folder: Path, start: Path | None) -> None:
    """A folder as a run finds it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if start is not None:
        shutil.copytree(start, folder)


def trial(name: str, work: Work, number: int, seed: int, root: Path) -> tuple[list[str], str]:
    """One kill; returns what is wrong afterwards, and a line about it."""
    stage, folder = work.stage, root / name / f"kill-{number}" / "vit_digits" / "run"
    random_numbers = random.Random(f"{seed} {name} {number}")
    for attempt in range(5):  # where the process was faster than its killer
        into_write = number % 2 == 0 and attempt < 3
        prepare(folder, work.start)
        killed = launch(stage, folder)
        if into_write:
            which = random_numbers.randint(1, max(1, work.writes // 2**attempt))
            watch(killed, stage, folder, lambda w, n=which: len(w.writes) >= n)
        else:
            moment = random_numbers.uniform(0, work.seconds / 2**attempt)
            watch(killed, stage, folder, lambda w, m=moment: w.began and time.monotonic() > w.began + m)
        if killed.process.returncode == -9:
            break
    else:
        return ["the process ended before it could be killed"], "not killed"
    left = [path.name for path in files(folder) if is_temporary(path)]
    where = f"{killed.ended - (killed.began or killed.ended):.1f} s into {work.seconds:.1f} s of work"
    if left:
        where = f"in the write of {left[0].removeprefix('.').rsplit('.', 2)[0]}"
    wrong = went_on(work, folder, killed)
    shutil.rmtree(root / name / f"kill-{number}")
    return wrong, where


def went_on(work: Work, folder: Path, killed: Watched) -> list[str]:
    """Repeats the command after a kill; returns what is wrong with what it makes."""
    before = stamps(folder, work.stage.units)
    again, rewritten = launch(work.stage, folder), set()

    def look(_) -> bool:
        now = stamps(folder, work.stage.units)
        rewritten.update(name for name, stamp in now.items() if before.get(name, stamp) != stamp)
        return False

    watch(again, work.stage, folder, look)
    look(None)
    if again.process.returncode != 0:
        return [f"exit code {again.process.returncode}: {again.log.read_text()[-500:]}"]
    finished = sorted(before)[: len(before) - work.stage.last]
    wrong = [f"{name} was finished and made again" for name in finished if name in rewritten]
    twice = computed_twice(killed.bars(), again.bars())
    if twice > work.stage.unit:
        wrong.append(f"{twice} computed twice, a unit is {work.stage.unit}")
    return wrong + differences(folder, work.expected)


def computed_twice(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> int:
    """The most that a progress bar had shown as done by a killed process and the next began before.

    Bars of epochs are one after the other; an epoch before the first that was resumed was finished.
    """
    return max((last - after[name][0] for name, (_, last) in before.items() if name in after), default=0)


def main() -> int:
    """Runs all stages; returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--kills", type=int, default=5, help="of each stage")
    flags.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    flags.add_argument("--seed", type=int, default=0, help="of the moments")
    flags.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    options = flags.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="ltx-kill-") as temporary:
        root = Path(temporary)
        for name in options.stages:
            results[name] = kill_stage(name, options, root)
    print(json.dumps({"results": results}))
    return int(any(result["survived"] < result["tried"] for result in results.values()))


def kill_stage(name: str, options: argparse.Namespace, root: Path) -> dict[str, int]:
    """All kills of a stage: how many were tried and survived."""
    stage, start = STAGES[name], None
    if stage.scores:
        start = root / name / "masks"
        flags = [*_PAIR, "--RUN-BASE-MODEL", "True", "--evaluate", "False", "--max-images", "64",
                 "--unit-size", "16"]  # fmt: skip
        undisturbed(Stage("seg_classification/run_seg_cls_opt.py", flags, (), 32), start, None)
    work = undisturbed(stage, root / name / "vit_digits" / "run", start)
    print(f"{name}: {work.seconds:.1f} s of work undisturbed, {work.writes} writes seen", flush=True)
    survived, in_writes = 0, 0
    with ThreadPoolExecutor(options.jobs) as pool:
        trials = [
            pool.submit(trial, name, work, number, options.seed, root) for number in range(options.kills)
        ]
        for number, one in enumerate(trials):
            wrong, where = one.result()
            survived, in_writes = survived + (not wrong), in_writes + where.startswith("in the write")
            print(f"{name} kill {number}, {where}: {'; '.join(wrong[:3]) or 'equal'}", flush=True)
    print(
        f"{name}: {survived} of {options.kills} survived, {in_writes} of them cut a write short", flush=True
    )
    return {"survived": survived, "tried": options.kills}


if __name__ == "__main__":
    sys.exit(main())
