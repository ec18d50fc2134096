"""Shards in one folder: two and four processes, and what does not fit together."""

import json
import shutil

import h5py
import numpy as np
import pytest

from ltx.config import UserError
from ltx.main import merge_results
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.runs.run_folder import resolved_options
from ltx.main.seg_classification import run_seg_cls_opt

N, UNIT = 8, 2
SIZES = ["--max-images", str(N), "--unit-size", str(UNIT), "--n_epochs_to_optimize_stage_b", "2"]


def flags_of(pair, root, name="run"):
    return [*pair.flags, *SIZES, "--default-root-dir", str(root), "--run-name", name]


@pytest.fixture
def run(tiny_pair, run_script, tmp_path, no_drawing):
    """A finished run of four mask files, and the closing line of its script."""
    done = run_script(run_seg_cls_opt, *flags_of(tiny_pair, tmp_path))
    assert done.code == 0, done.err
    return tmp_path / "run", done.closing["results"]


def mask_file(folder, first):
    return folder / "masks" / f"{first:06d}-{first + UNIT - 1:06d}.h5"


def change(path, **arrays):
    with h5py.File(path, "r+") as file:
        for name, values in arrays.items():
            file[name][...] = values


def test_shards_one_after_the_other_add_up_to_one_process(tiny_pair, run, run_script, tmp_path, no_drawing):
    _, expected = run
    for shard in ("2", "0", "1"):
        flags = [*flags_of(tiny_pair, tmp_path, "shards"), "--num-shards", "3", "--shard-index", shard]
        done = run_script(run_seg_cls_opt, *flags)
        assert done.code == 0, done.err
    merged = run_script(merge_results, tmp_path / "shards")
    assert merged.code == 0, merged.err
    assert f"masks: {N} images, each once" in merged.out
    assert merged.closing["results"].keys() == expected.keys()
    for variant, row in expected.items():
        assert merged.closing["results"][variant] == pytest.approx(row, abs=1e-4)
    (summary,) = (tmp_path / "shards").glob("results/*/summary.json")
    assert json.loads(summary.read_text())["rows"]["pltx"]["POS"]["n"] == N


def test_merging_again_changes_nothing(run, run_script, no_drawing):
    folder, expected = run
    merged = run_script(merge_results, folder)
    assert merged.closing["results"] == expected


@pytest.mark.parametrize("n", [2, 4])
def test_processes_fill_one_folder(digits_weights, start_run, run_script, tmp_path, n):
    """As torchrun and as a Slurm array start them, at the same time."""
    if n == 2:
        places = [{"RANK": str(i), "WORLD_SIZE": "2"} for i in range(n)]
    else:
        shared = {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}
        places = [shared | {"SLURM_ARRAY_TASK_ID": str(i + 1)} for i in range(n)]
    flags = [*flags_of(digits_weights, tmp_path), "--metrics", "POS,NEG"]
    for run in [start_run("ltx", flags, env=place) for place in places]:
        done = run.wait()
        assert done.code == 0, done.err
    merged = run_script(merge_results, tmp_path / "run")
    assert merged.code == 0, merged.err
    assert f"masks: {N} images, each once" in merged.out
    assert set(merged.closing["results"]["last"]) == {"POS", "NEG"}


# What does not fit together.


def test_a_missing_shard(run, run_script):
    folder, _ = run
    mask_file(folder, 4).unlink()
    error = run_script(merge_results, folder).error
    assert "2 of 8 images have no mask, from image 4 on" in error and "000004-000005.h5" in error


def test_shards_that_overlap(run, run_script):
    folder, _ = run
    shutil.copy(mask_file(folder, 2), folder / "masks" / "000003-000004.h5")
    assert "image 2 is in both" in run_script(merge_results, folder).error


def test_an_index_out_of_range(run, run_script):
    folder, _ = run
    change(mask_file(folder, 6), index=[6, 8])
    error = run_script(merge_results, folder).error
    assert "holds image 8, but the run has images 0 ... 7" in error


def test_a_file_of_another_run(run, tiny_pair, run_script, tmp_path, no_drawing):
    folder, _ = run
    other = [*flags_of(tiny_pair, tmp_path, "other"), "--finetune-lr", "1e-3", "--evaluate", "False"]
    assert run_script(run_seg_cls_opt, *other).code == 0
    shutil.copy(mask_file(tmp_path / "other", 2), mask_file(folder, 2))
    error = run_script(merge_results, folder).error
    assert "another configuration" in error and "000002-000003.h5" in error


def test_two_configurations_into_one_folder(run, tiny_pair, run_script, tmp_path):
    error = run_script(run_seg_cls_opt, *flags_of(tiny_pair, tmp_path), "--finetune-lr", "1e-3").error
    assert "finetune_lr was 5e-05, now 0.001" in error


def part(folder, first):
    (path,) = folder.glob(f"results/*/parts/{first:06d}-*.npz")
    return path


def test_scores_that_are_missing(run, run_script):
    folder, _ = run
    part(folder, 2).unlink()
    assert "no scores of 000002-000003.h5" in run_script(merge_results, folder).error


def test_scores_of_other_images(run, run_script):
    folder, _ = run
    arrays = dict(np.load(part(folder, 2)))
    np.savez(part(folder, 2), **arrays | {"index": np.array([3, 2])})
    assert "scores other images than" in run_script(merge_results, folder).error
    np.savez(part(folder, 2), **arrays | {"index": np.array([0, 1])})
    assert "image 0 is in both" in run_script(merge_results, folder).error


def test_a_run_without_scores(tiny_pair, run_script, tmp_path):
    done = run_script(run_seg_cls_opt, *flags_of(tiny_pair, tmp_path), "--evaluate", "False")
    assert done.code == 0, done.err
    merged = run_script(merge_results, tmp_path / "run")
    assert "no evaluation was begun" in merged.out and merged.closing["results"] == {}


def test_stored_options_come_back(tmp_path):
    options = PerturbationOptions(run_folder=tmp_path, fill="mean", exclude_manifest=tmp_path / "a.csv")
    stored = json.loads(json.dumps(resolved_options(options)))
    assert merge_results._options_of(PerturbationOptions, stored) == options
    for wrong in ({"filling": "mean"}, {"fill": "red"}, {"fill": None}, {"batch_size": True}, {"metrics": 3}):
        with pytest.raises(UserError, match=f"'{next(iter(wrong))}' is"):
            merge_results._options_of(PerturbationOptions, stored | wrong)


def test_no_run(run_script, tmp_path):
    assert "no run.json" in run_script(merge_results, tmp_path).error
