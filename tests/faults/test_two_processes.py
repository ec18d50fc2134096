"""Two processes in one folder: by mistake the second is refused, by design they share the work."""

import functools
import os
import time
from pathlib import Path

import pytest

from ltx.main.perturbation_eval import unit_scorer
from ltx.main.runs import mask_job, run_folder
from ltx.main.runs.locks import LOCK_FILE
from ltx.main.seg_classification import pretraining
from ltx.tests.faults.folders import contents, differences
from ltx.tests.support.processes import Run

BUSY = {
    "pretraining": "error: another process is at work on the same training in ",
    "ltx": "error: another process is at work on the same mask files in ",
    "baselines": "error: another process is at work on the same mask files in ",
    "evaluation": "error: another process is at work on the scores of the same mask files in ",
}
PLACES = {
    "pretraining": (pretraining.Trainer, "_train_step"),
    "ltx": (mask_job.MaskJob, "_make"),
    "baselines": (mask_job.MaskJob, "_make"),
    "evaluation": (unit_scorer.UnitScorer, "_score_batch"),
}


def noted(script: str, folder: Path, wait_for: Path | None) -> None:
    """Notes each piece of work that this process does, and holds the first until a file is there."""
    owner, name = PLACES[script]
    work = getattr(owner, name)

    def work_and_note(*arguments, **keywords):
        note = folder / f"{os.getpid()}-{len(list(folder.iterdir()))}.piece"
        note.touch()
        while wait_for is not None and not wait_for.exists():
            time.sleep(0.01)
        return work(*arguments, **keywords)

    setattr(owner, name, work_and_note)


def wait_until(is_so, seconds=300):
    limit = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.fixture
def argv(argv_of, start_run, tmp_path):
    """`argv(script)`: its command, and the command's run folder; for the evaluation, masks in it."""

    def make(script, name="both"):
        root = tmp_path / name
        folder = root / "tiny" / "run" if script == "pretraining" else root / "run"
        if script != "evaluation":
            return argv_of(script, root), folder
        flags = ("--RUN-BASE-MODEL", "True", "--evaluate", "False")
        assert start_run("ltx", argv_of("ltx", root, *flags)).wait().code == 0
        return [folder, "--num-workers", "0", "--device", "cpu"], folder

    return make


@pytest.mark.parametrize("script", BUSY)
def test_the_same_command_twice_at_a_time(script, argv, start_run, tmp_path):
    command, folder = argv(script)
    pieces, gate = tmp_path / "pieces", tmp_path / "go on"
    pieces.mkdir()
    first = start_run(script, command, functools.partial(noted, script, pieces, gate))
    wait_until(lambda: any(pieces.iterdir()))
    second = start_run(script, command, functools.partial(noted, script, pieces, gate)).wait()
    assert second.error.startswith(BUSY[script]) and "--shard-index" in second.error
    gate.touch()
    assert first.wait().code == 0
    by_process = {piece.name.partition("-")[0] for piece in pieces.iterdir()}
    assert by_process == {str(first.process.pid)}
    alone, other = argv(script, "alone")
    assert start_run(script, alone).wait().code == 0
    assert differences(folder, contents(other)) == []
    assert start_run(script, command).wait().code == 0  # nobody is at work any more


@pytest.mark.parametrize("script", ["ltx", "baselines", "evaluation"])
def test_shards_side_by_side(script, argv, start_run, tmp_path):
    command, folder = argv(script)
    pieces = tmp_path / "pieces"
    pieces.mkdir()

    def start(shard: int, gate: Path | None) -> Run:
        flags = ["--num-shards", "2", "--shard-index", shard]
        return start_run(script, [*command, *flags], functools.partial(noted, script, pieces, gate))

    first = start(0, tmp_path / "go on")
    wait_until(lambda: any(pieces.iterdir()))
    second = start(1, None)
    wait_until(lambda: len(list(pieces.iterdir())) > 1)
    (tmp_path / "go on").touch()
    for run in (first, second):
        result = run.wait()
        assert result.code == 0, result.err
    of = [
        sum(piece.name.startswith(f"{run.process.pid}-") for piece in pieces.iterdir())
        for run in (first, second)
    ]
    assert of == [2, 1]  # three mask files, each once
    alone, other = argv(script, "alone")
    assert start_run(script, alone).wait().code == 0
    assert differences(folder, contents(other)) == []


def slow_to_write(gate: Path) -> None:
    """Both processes have seen that there is no run.json before one writes it."""
    new_run = run_folder._new_run

    def wait_and_make(*arguments):
        while not gate.exists():
            time.sleep(0.01)
        return new_run(*arguments)

    run_folder._new_run = wait_and_make


def test_two_configurations_that_begin_at_the_same_time(argv, start_run, tmp_path):
    """As in a cluster's array whose tasks were given one --run-name: the folder is one run's."""
    command, folder = argv("ltx")
    gate, patch = tmp_path / "go on", functools.partial(slow_to_write, tmp_path / "go on")
    runs = [start_run("ltx", [*command, "--seed", seed], patch) for seed in (1, 2)]
    wait_until((folder / LOCK_FILE).exists)
    time.sleep(1)
    gate.touch()
    results = [run.wait() for run in runs]
    assert sorted(result.code for result in results) == [0, 2]
    refused = next(result for result in results if result.code)
    assert "holds a run of another configuration (seed was" in refused.error


def test_shards_that_overlap(argv, start_run, tmp_path):
    """The whole run beside a half of it: as far as they would do the same, the second is refused."""
    command, folder = argv("ltx")
    pieces, gate = tmp_path / "pieces", tmp_path / "go on"
    pieces.mkdir()
    shard = ["--num-shards", "2", "--shard-index", "1"]
    half = start_run("ltx", [*command, *shard], functools.partial(noted, "ltx", pieces, gate))
    wait_until(lambda: any(pieces.iterdir()))
    assert start_run("ltx", command).wait().error.startswith(BUSY["ltx"])
    gate.touch()
    assert half.wait().code == 0
    assert start_run("ltx", command).wait().code == 0
    assert len(list((folder / "masks").glob("*.h5"))) == 3
