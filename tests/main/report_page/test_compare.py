"""Which runs may stand in one table, which images are compared, and what rows are called."""

import csv
import json
import shutil

import numpy as np
import pytest

from ltx.config import UserError
from ltx.main.report_page.collect import open_runs, read_results
from ltx.main.report_page.compare import compare
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.rows import find_row, reference_of


def compared(*runs, protocol="perturbation", **options):
    opened = open_runs(tuple(str(run) for run in runs))
    results = [result for run in opened for result in read_results(run)]
    return compare(results, protocol, ReportOptions(runs=(), **options))


def test_common_images_recompute_from_per_image_values(make_run):
    one, two = make_run("one", n_images=6), make_run("two", variants=("other",), n_images=6, first=2)
    with pytest.raises(
        UserError, match=r"two and one .* 6 and 6 images, and 0 is in one .*--common-images .* 4"
    ):
        compared(one, two)
    found = compared(one, two, common_images=True)[0]
    assert found.images == ["2", "3", "4", "5"] and found.left_out == 4
    whole = compared(one)[0]
    for name, measure in whole.row("last").measures.items():
        np.testing.assert_array_equal(found.row("last").measures[name].per_image, measure.per_image[2:])
    mean = whole.row("last").measures["POS"].per_image[2:].mean()
    assert found.row("last").measures["POS"].summary().mean == pytest.approx(mean)
    assert found.row("last").positions.tolist() == [2, 3, 4, 5]
    assert found.row("other").positions.tolist() == [0, 1, 2, 3]


def test_nothing_in_common(make_run):
    runs = make_run("one", n_images=3), make_run("two", variants=("other",), n_images=3, first=3)
    with pytest.raises(UserError, match="no image is left"):
        compared(*runs, common_images=True)


def test_exclude_manifest(make_run, tmp_path):
    (tmp_path / "seen.csv").write_text("image\n1\n4\n")
    found = compared(make_run(), exclude_manifest=tmp_path / "seen.csv")[0]
    assert found.images == ["0", "2", "3", "5"] and found.left_out == 2


def test_order_of_images_does_not_matter(make_run):
    """Rows of the second run are looked up by name."""
    one, two = make_run("one", n_images=4), make_run("two", variants=("other",), n_images=4)
    values = compared(two)[0].row("other").measures["NEG"].per_image
    lines = (two / "manifest.csv").read_text().splitlines()
    names = ["3", "2", "1", "0"]
    (two / "manifest.csv").write_text(
        "\n".join([lines[0], *(f"{i},{name},{name}" for i, name in enumerate(names))]) + "\n"
    )
    with pytest.raises(
        UserError, match=r"two and one .* the class scored differs on 4 images, first 0 \(3, there 0\)"
    ):
        compared(one, two)
    path = next((two / "results").rglob("per_image.csv"))
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    place = header.index("scored_class")
    with open(path, "w", newline="") as file:
        turned = [[*row[:place], names[int(row[0])], *row[place + 1 :]] for row in rows]
        csv.writer(file).writerows([header, *turned])
    found = compared(one, two)[0]
    np.testing.assert_array_equal(found.row("other").measures["NEG"].per_image, values[::-1])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"record": {"explainee": {"name": "other", "sha256": "1" * 64}}}, r"explainee is other \(weights 1"),
        ({"train_model_by_target_gt_class": True}, "scored with different fills or classes .*class target"),
        ({"fills": ("blur",)}, "different fills or classes .*one: fill black, .*two: fill blur"),
        ({"dataset": {"split": "train"}}, "the image set is digits, .*split train, in one digits"),
        ({"record": {"input_size": [32, 32]}}, "the input size is 32x32, in one 16x16"),
    ],
)  # fmt: skip
def test_runs_that_differ_are_refused(make_run, change, words):
    one, two = make_run("one"), make_run("two", variants=("other",), **change)
    with pytest.raises(UserError, match=words):
        compared(one, two, common_images=True)


def test_explained_class_must_agree_where_the_scored_one_does(make_run):
    one = make_run("one", record={"score_class": "target"})
    two = make_run("two", variants=("other",), train_model_by_target_gt_class=True)
    with pytest.raises(UserError, match="the class explained is target, in one predicted"):
        compared(one, two)


def test_fills(make_run):
    """Every fill that all runs have is a comparison; black first, or the one asked for alone."""
    one = make_run("one", fills=("black", "blur", "mean"))
    two = make_run("two", variants=("other",), fills=("blur", "black"))
    assert [found.fill for found in compared(one, two)] == ["black", "blur"]
    assert [found.fill for found in compared(one, two, fill="blur")] == ["blur"]
    with pytest.raises(
        UserError, match=r"two has results for .* asks for --fill mean; make them .*--fill mean'"
    ):
        compared(one, two, fill="mean")


def test_results_of_other_metrics_are_joined(make_run):
    """A folder of all metrics and one of some: their union, the wider one's values."""
    run = make_run(metrics="POS,NEG")
    make_run(metrics="POS,SIC", seed=5)
    only = [r for r in read_results(open_runs((str(run),))[0])]
    assert len(only) == 2
    found = compared(run)[0]
    assert sorted(found.better) == ["NEG", "POS", "SIC"]


def test_results_need_no_parts(make_run):
    """Figures of all images are the evaluator's own, curves included; those of some are recomputed."""
    run = make_run(metrics="all")
    whole = compared(run)[0]
    shutil.rmtree(next((run / "results").iterdir()) / "parts")
    (again,) = compared(run)
    summary = json.loads(next((run / "results").rglob("summary.json")).read_text())
    for label in ("pltx", "last"):
        for name, measure in again.row(label).measures.items():
            figure = measure.summary()
            assert figure == whole.row(label).measures[name].summary()
            assert figure.mean == summary["rows"][label][name]["mean"]
            assert figure.curve is None or figure.curve[1] == summary["curves"][label][name]
            recomputed = measure.take(np.arange(5)).summary()
            assert recomputed.curve is None or name in ("AIC", "SIC")
            assert recomputed.mean == pytest.approx(np.nanmean(measure.per_image[:5])) or recomputed.curve


def test_labels(make_run):
    """A name that two runs share gets its run's in front; so does one whose run was renamed."""
    one, two = make_run("one", variants=("last",)), make_run("two", variants=("last", "best_pos"))
    assert [row.label for row in compared(one)[0].rows] == ["last"]
    assert [row.label for row in compared(one, two)[0].rows] == ["one/last", "two/last", "best_pos"]
    named = compared(f"slow={one}", f"fast={two}")[0]
    assert [row.label for row in named.rows] == ["slow", "fast/last", "fast/best_pos"]
    assert named.row("fast/best_pos").candidates == 25 and named.row("slow").candidates == 1
    with pytest.raises(UserError, match="two rows are called pltx"):
        compared(f"pltx={one}", make_run("three", variants=("pltx",)))


def test_reference_and_rows(make_run):
    one, two = make_run("one", variants=("pltx", "last")), make_run("two", variants=("last", "noise"))
    comparison = compared(one, two)[0]
    assert reference_of(comparison, None).label == "one/last"
    assert reference_of(comparison, "two/last").label == "two/last"
    assert reference_of(comparison, "noise").label == "noise"
    with pytest.raises(UserError, match="--reference last: several rows; there are one/last, two/last"):
        reference_of(comparison, "last")
    with pytest.raises(UserError, match="--rival x: no such row; there are pltx, one/last"):
        find_row(comparison.rows, "x", "--rival")
    assert reference_of(compared(make_run("three", variants=("noise",)))[0], None).label == "noise"
    assert reference_of(compared(make_run("four", variants=("noise", "pltx")))[0], None).label == "pltx"


def test_variants_in_the_order_of_their_making(make_run):
    run = make_run(variants=("best_loss", "best_pos", "last", "pltx", "last_randomised"))
    labels = [row.label for row in compared(run)[0].rows]
    assert labels == ["pltx", "last", "last_randomised", "best_loss", "best_pos"]


def test_runs_that_cannot_be_read(make_run, tmp_path):
    run = make_run()
    (tmp_path / "empty").mkdir()
    bad = [
        ("nowhere", "no such run folder: nowhere"),
        (f"x={tmp_path}/nowhere", "no such run folder"),
        (str(tmp_path / "empty"), "is not a run folder: it has no run.json"),
        (f"={run}", "wanted NAME=PATH"),
    ]
    for text, words in bad:
        with pytest.raises(UserError, match=words):
            open_runs((text,))
    with pytest.raises(UserError, match="is given twice"):
        open_runs((str(run), f"again={run}"))
    with pytest.raises(UserError, match="two runs are named run; name one of them with NAME="):
        open_runs((str(run), f"run={make_run('other')}"))
    (tmp_path / "empty" / "run.json").write_text('{"options": {}}')
    with pytest.raises(UserError, match=r"no run that makes masks: run\.json has no dataset, explainee"):
        open_runs((str(tmp_path / "empty"),))


def test_results_that_cannot_be_read(make_run, tmp_path):
    run = make_run()
    record = json.loads((run / "run.json").read_text())
    folder = next((run / "results").iterdir())
    (run / "run.json").write_text(json.dumps(record | {"hash": "another"}))
    with pytest.raises(UserError, match="scores masks that are no longer in"):
        read_results(open_runs((str(run),))[0])
    (run / "run.json").write_text(json.dumps(record))
    lines = (folder / "per_image.csv").read_text().splitlines()
    for damaged, words in [
        (["nothing", "1"], r"'variant' is not in list"),
        ([], "it is empty"),
        (lines[:1], "other variants than summary.json"),
        (lines[:-1], "the same images for all variants"),
        ([*lines, *lines[1:]], "an image twice"),
        ([lines[0], *(line.replace("0", "9", 1) for line in lines[1:])], "not among the run's 6"),
        ([*lines[:-1], lines[-1] + ",1"], "line 13 has 15 cells, the first 14"),
        ([lines[0].replace("POS", "POSS"), *lines[1:]], "it has no column 'POS'"),
    ]:
        (folder / "per_image.csv").write_text("".join(f"{line}\n" for line in damaged))
        with pytest.raises(
            UserError, match=rf"cannot read .*per_image.csv: .*{words}.*run_perturbation_eval"
        ):
            read_results(open_runs((str(run),))[0])
    (folder / "summary.json").unlink()
    with pytest.raises(
        UserError, match=r"has no results; make them with 'python main/perturbation_eval/run_pert"
    ):
        read_results(open_runs((str(run),))[0])
