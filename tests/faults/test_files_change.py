"""Files removed or replaced while a run is on: one line or a warning, and the same command resumes."""

import functools
import json
import re
import shutil
from pathlib import Path

import pytest

from ltx.main.perturbation_eval import unit_scorer
from ltx.main.runs import mask_job
from ltx.main.runs.mask_files import read_unit, write_unit
from ltx.main.seg_classification import pretraining
from ltx.tests.faults.conftest import folder_of
from ltx.tests.faults.folders import contents, differences

RUN_JSON, MANIFEST, MASKS = "run.json", "manifest.csv", "masks/000000-000001.h5"


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_run(path: Path) -> None:
    unit = read_unit(path)
    unit.attributes["run_hash"] = "f" * 64
    write_unit(path, unit)


def before_the_last_file(happens, path: Path) -> None:
    """Patches the making of masks: something happens to a file before the last work unit."""
    make, made = mask_job.MaskJob._make, []

    def make_unit(*arguments):
        made.append(1)
        if len(made) == 3:
            happens(path)
        return make(*arguments)

    mask_job.MaskJob._make = make_unit


def before_the_scores(happens, path: Path) -> None:
    score, done = unit_scorer.UnitScorer.score, []

    def first_happens(*arguments):
        if not done:
            happens(path)
        done.append(1)
        return score(*arguments)

    unit_scorer.UnitScorer.score = first_happens


@pytest.fixture
def whole(argv_of, start_run, tmp_path):
    """What an undisturbed LTX run of three mask files makes, scores included."""
    assert start_run("ltx", argv_of("ltx", tmp_path / "whole")).wait().code == 0
    return contents(folder_of("ltx", tmp_path / "whole"))


def goes_on(start_run, argv, folder, whole):
    again = start_run("ltx", argv).wait()
    assert again.code == 0, again.err
    assert differences(folder, whole) == []


MASKS_LATER = "masks/000004-000005.h5"


@pytest.mark.parametrize(
    ("when", "happens", "name", "line"),
    [
        (before_the_last_file, remove, RUN_JSON, "is not a run folder: it has no run.json"),
        (before_the_last_file, empty, RUN_JSON, "run.json is damaged"),
        (before_the_last_file, remove, MANIFEST, "no such manifest"),
        # Which of the two is missed first depends on how far the removal has come.
        (before_the_last_file, remove, ".", "is not a run folder: it has no run.json|no such manifest"),
        (before_the_last_file, cut, MASKS, "cannot read mask file"),
        (before_the_scores, remove, MASKS_LATER, "cannot read mask file"),
        (before_the_scores, of_another_run, MASKS_LATER, "belongs to a run of another configuration"),
    ],
)
def test_one_line_and_the_same_command_goes_on(
    when, happens, name, line, argv_of, start_run, whole, tmp_path
):
    """Where a damaged file has to be deleted, the line says so."""
    argv, folder = argv_of("ltx", tmp_path / "disturbed"), folder_of("ltx", tmp_path / "disturbed")
    stopped = start_run("ltx", argv, functools.partial(when, happens, folder / name)).wait()
    assert re.search(line, stopped.error) and str(folder) in stopped.error
    if happens in (empty, cut, of_another_run):
        again = start_run("ltx", argv).wait()
        assert line in again.error and ("delete it" in again.error or "remove it" in again.error)
        (folder / name).unlink()
    goes_on(start_run, argv, folder, whole)


def test_a_mask_file_that_is_gone_in_the_end(argv_of, start_run, whole, tmp_path):
    """The others are scored, with a warning; the same command makes it, and scores it alone."""
    argv, folder = argv_of("ltx", tmp_path / "disturbed"), folder_of("ltx", tmp_path / "disturbed")
    patch = functools.partial(before_the_last_file, remove, folder / MASKS)
    first = start_run("ltx", argv, patch).wait()
    assert first.code == 0 and "only 2 of 3 mask files are there; their images alone are scored" in first.err
    parts = {path: path.stat().st_mtime_ns for path in folder.glob("results/*/parts/*.npz")}
    assert len(parts) == 2
    goes_on(start_run, argv, folder, whole)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in parts.items())


def test_a_manifest_of_other_images_is_put_right(argv_of, start_run, whole, tmp_path):
    argv, folder = argv_of("ltx", tmp_path / "disturbed"), folder_of("ltx", tmp_path / "disturbed")
    assert start_run("ltx", [*argv, "--evaluate", "False"]).wait().code == 0
    (folder / MANIFEST).write_text("index,image,label\n" + "".join(f"{i},{i + 50},0\n" for i in range(6)))
    goes_on(start_run, argv, folder, whole)


def test_scores_that_another_run_left(argv_of, start_run, whole, tmp_path):
    """Its run.json and masks were deleted, its results were not."""
    argv, folder = argv_of("ltx", tmp_path / "disturbed"), folder_of("ltx", tmp_path / "disturbed")
    assert start_run("ltx", [*argv, "--finetune-lr", "1e-3"]).wait().code == 0
    (folder / RUN_JSON).unlink()
    remove(folder / "masks")
    goes_on(start_run, argv, folder, whole)


def replace_state(path: Path) -> None:
    """Another run's state comes into the folder after the second step."""
    step, taken = pretraining.Trainer._train_step, []

    def train_step(trainer, *arguments):
        taken.append(1)
        if len(taken) == 3:
            shutil.copy(path, trainer.folder / "state.pt")
            raise KeyboardInterrupt
        return step(trainer, *arguments)

    pretraining.Trainer._train_step = train_step


def test_the_state_of_another_training(argv_of, start_run, tmp_path):
    """It has the same architecture, and would be gone on with."""
    roots = {name: tmp_path / name for name in ("other", "whole", "run")}
    assert start_run("pretraining", argv_of("pretraining", roots["other"], "--seed", "1")).wait().code == 0
    assert start_run("pretraining", argv_of("pretraining", roots["whole"])).wait().code == 0
    other, folder = (folder_of("pretraining", roots[name]) for name in ("other", "run"))
    argv = argv_of("pretraining", roots["run"])
    assert (
        start_run("pretraining", argv, functools.partial(replace_state, other / "state.pt")).wait().code
        == 130
    )
    refused = start_run("pretraining", argv).wait().error
    assert "state.pt belongs to a run of another configuration" in refused and "remove it" in refused
    (folder / "state.pt").unlink()
    assert start_run("pretraining", argv).wait().code == 0
    assert differences(folder, contents(folder_of("pretraining", roots["whole"]))) == []


def test_the_hash_is_that_of_run_json(argv_of, start_run, tmp_path):
    """Guards the test above: the hash in the state is what it is compared with."""
    argv = argv_of("pretraining", tmp_path)
    assert start_run("pretraining", argv).wait().code == 0
    folder = folder_of("pretraining", tmp_path)
    assert contents(folder)["state.pt"]["run_hash"] == json.loads((folder / RUN_JSON).read_text())["hash"]
