"""Sets with pictures that cannot be read: the run goes on, names them, counts them, and skips them again."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from ltx.main import explain, merge_results
from ltx.main.baselines import run_baselines
from ltx.main.perturbation_eval import run_perturbation_eval
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt

GOOD = ("b_good.png", "d_good.png", "e_good.png")
BAD = ("a_empty.png", "c_cut.png", "f_folder.png")
STEPS = ("--n_epochs_to_optimize_stage_b", 2)


@pytest.fixture
def folder(write_images):
    """Three good pictures among three bad ones."""
    folder = write_images([*GOOD, "c_cut.png"])
    (folder / "a_empty.png").write_bytes(b"")
    content = (folder / "c_cut.png").read_bytes()
    (folder / "c_cut.png").write_bytes(content[: len(content) // 2])
    (folder / "f_folder.png").mkdir()
    return folder


def skipped(run) -> dict[str, str]:
    with open(run / "skipped.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(set(row) == {"img_name", "reason"} for row in rows)
    names = [row["img_name"] for row in rows]
    assert names == sorted(set(names))
    return {row["img_name"]: row["reason"] for row in rows}


def held(run) -> list[int]:
    return [int(i) for path in unit_files(run) for i in read_unit(path).index]


def ltx(run_script, pair, folder, root, *more):
    return run_script(
        run_seg_cls_opt, *pair.flags, "--images-path", folder, "--default-root-dir", root,
        "--run-name", "run", *STEPS, *more,
    )  # fmt: skip


@pytest.mark.usefixtures("no_drawing")
def test_ltx_skips_names_counts_and_goes_on(run_script, tiny_pair, folder, tmp_path, caplog):
    made = ltx(run_script, tiny_pair, folder, tmp_path, "--unit-size", 2)
    assert made.code == 0, made.err
    run = tmp_path / "run"
    assert held(run) == [1, 3, 4] and list(skipped(run)) == sorted(BAD)
    assert "truncated" in skipped(run)["c_cut.png"] and "folder" in skipped(run)["f_folder.png"]
    assert made.closing["skipped"] == 3 and "POS" in made.closing["results"]["last"]
    assert all(f"skipped {name}: cannot read image" in caplog.text for name in BAD)
    summary = json.loads(next((run / "results").glob("*/summary.json")).read_text())
    assert summary["skipped"] == 3 and summary["rows"]["last"]["POS"]["n"] == 3

    first = read_unit(unit_files(run)[1])
    unit_files(run)[0].unlink()  # as if it had been killed before this one
    again = ltx(run_script, tiny_pair, folder, tmp_path, "--unit-size", 2)
    assert again.closing == made.closing and list(skipped(run)) == sorted(BAD)

    merged = run_script(merge_results, run)
    assert "masks: 6 images, each once, 3 of them skipped" in merged.out
    assert merged.closing["results"] == made.closing["results"]

    # The same masks as without the bad images: only their positions differ.
    for name in BAD:
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()
    run_script(
        run_seg_cls_opt, *tiny_pair.flags, "--images-path", folder, "--default-root-dir", tmp_path,
        "--run-name", "clean", *STEPS, "--evaluate", "False",
    )  # fmt: skip
    clean = read_unit(unit_files(tmp_path / "clean")[0])
    np.testing.assert_allclose(clean.token_masks["last"][1:2], first.token_masks["last"], atol=1e-6)


def test_shards_fill_one_list(run_script, tiny_pair, folder, tmp_path):
    for shard in (1, 0):
        made = ltx(
            run_script, tiny_pair, folder, tmp_path, "--unit-size", 1, "--num-shards", 2,
            "--shard-index", shard, "--RUN-BASE-MODEL", "True", "--evaluate", "False",
        )  # fmt: skip
        assert made.code == 0, made.err
    assert list(skipped(tmp_path / "run")) == sorted(BAD) and held(tmp_path / "run") == [1, 3, 4]


def test_fail_names_the_file_and_what_was_written_stays(run_script, tiny_pair, folder, tmp_path):
    more = ("--on-bad-image", "fail", "--unit-size", 1, "--RUN-BASE-MODEL", "True", "--evaluate", "False")
    (folder / "a_empty.png").unlink()
    failed = ltx(run_script, tiny_pair, folder, tmp_path, *more)
    assert "c_cut.png" in failed.error and held(tmp_path / "run") == [0]
    more = ("--unit-size", 1, "--RUN-BASE-MODEL", "True", "--evaluate", "False")
    assert ltx(run_script, tiny_pair, folder, tmp_path, *more).code == 0
    assert held(tmp_path / "run") == [0, 2, 3]


def test_only_bad_images_are_one_line(run_script, tiny_pair, folder, tmp_path):
    for name in GOOD:
        (folder / name).unlink()
    made = ltx(run_script, tiny_pair, folder, tmp_path, "--RUN-BASE-MODEL", "True")
    assert "none of the 3 images could be explained" in made.error and "skipped.csv" in made.error
    assert len(skipped(tmp_path / "run")) == 3


@pytest.mark.usefixtures("no_drawing")
def test_images_that_turn_bad_before_the_evaluation(run_script, tiny_pair, folder, tmp_path):
    run = tmp_path / "run"
    made = run_script(
        run_baselines, *without_explainer(tiny_pair), "--images-path", folder, "--default-root-dir", tmp_path,
        "--run-name", "run", "--method", "random", "--evaluate", "False",
    )  # fmt: skip
    assert made.code == 0 and made.closing["skipped"] == 3
    (folder / "d_good.png").write_bytes(b"")
    flags = ("--device", "cpu", "--num-workers", "0", "--metrics", "POS,DEL")
    assert "d_good.png" in run_script(run_perturbation_eval, run, *flags, "--on-bad-image", "fail").error
    scored = run_script(run_perturbation_eval, run, *flags)
    assert scored.code == 0 and scored.closing["skipped"] == 4
    results = next((run / "results").glob("*/summary.json"))
    summary = json.loads(results.read_text())
    assert summary["skipped"] == 4 and summary["rows"]["random"]["POS"]["n"] == 2
    assert list(skipped(results.parent)) == ["d_good.png"]
    with open(results.parent / "per_image.csv", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["b_good.png", "e_good.png"]
    assert run_script(merge_results, run).closing["results"] == scored.closing["results"]


def without_explainer(pair) -> list[str]:
    flags = list(pair.flags)
    at = flags.index("--explainer-checkpoint")
    return flags[:at] + flags[at + 2 :]


@pytest.mark.usefixtures("no_drawing")
def test_pretraining_learns_the_same_beside_bad_images(run_script, tiny_pair, folder, tmp_path):
    flags = without_explainer(tiny_pair)
    lists = {
        "train": ("a_empty.png", "b_good.png", "d_good.png", "f_folder.png"),
        "val": ("c_cut.png", "e_good.png"),
    }
    for name, images in lists.items():
        (tmp_path / f"{name}.csv").write_text("image\n" + "\n".join(images) + "\n")
    arguments = (
        *flags, "--images-path", folder, "--default-root-dir", tmp_path / "out", "--n-epochs", 2,
        "--batch-size", 4, "--train-manifest", tmp_path / "train.csv", "--val-manifest", tmp_path / "val.csv",
    )  # fmt: skip
    failed = run_script(run_seg_cls, *arguments, "--on-bad-image", "fail", "--run-name", "fail")
    assert "cannot read image" in failed.error
    made = run_script(run_seg_cls, *arguments, "--run-name", "run")
    assert made.code == 0, made.err
    run = next((tmp_path / "out").glob("*/run"))
    assert list(skipped(run)) == sorted(BAD) and made.closing["skipped"] == 3
    with open(run / "epochs.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert 0 < float(row["train_mask_loss"]) < 1.32  # a mean over the two that were read
    assert float(row["train_mask_loss"]) > 0.69 and 0.69 < float(row["val_mask_loss"]) < 1.32


@pytest.mark.usefixtures("no_drawing")
def test_explain_a_folder(run_script, tiny_pair, folder, tmp_path):
    left_out = ("--images-path", "digits", "--num-workers", "0")
    flags = [part for part in tiny_pair.flags if part not in left_out]
    arguments = (*flags, "--input", folder, "--default-root-dir", tmp_path, "--run-name", "run")
    made = run_script(explain, *arguments)
    assert made.code == 0, made.err
    assert list(skipped(tmp_path / "run")) == sorted(BAD) and made.closing["skipped"] == 3
    assert held(tmp_path / "run") == [1, 3, 4]
    assert run_script(explain, *arguments).closing == made.closing
    assert "a_empty.png" in run_script(explain, *arguments, "--on-bad-image", "fail").error
    alone = run_script(explain, *flags, "--input", folder / "c_cut.png", "--default-root-dir", tmp_path)
    assert "could be explained" in alone.error


def test_a_name_with_commas_newlines_and_formulas_comes_back_as_it_is(run_script, tiny_pair, tmp_path):
    """CSV keeps names as they are: another program must find the file by them."""
    names = ['=cmd|"calc"!A1.png', "a,b\nc.png", "+1.png", "@x.png", "-y.png"]
    (tmp_path / "set").mkdir()
    for name in names:
        Image.new("RGB", (16, 16), "red").save(tmp_path / "set" / name.replace("/", "_"))
        (tmp_path / "set" / f"z{name}").write_bytes(b"")
    made = ltx(
        run_script, tiny_pair, tmp_path / "set", tmp_path, "--RUN-BASE-MODEL", "True", "--evaluate", "False"
    )
    assert made.code == 0, made.err
    assert list(skipped(tmp_path / "run")) == sorted(f"z{name}" for name in names)
