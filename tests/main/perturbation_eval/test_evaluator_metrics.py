"""The evaluator with the slow metrics: folders that do not mix, shards that add up, work that is not lost."""

import csv
import json

import numpy as np
import pytest

from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.baselines.baseline_run import fill_with_baselines
from ltx.main.baselines.options import BaselineOptions
from ltx.main.perturbation_eval import evaluator, run_perturbation_eval, unit_scorer
from ltx.main.perturbation_eval.evaluator import evaluate
from ltx.main.perturbation_eval.information import median_curve
from ltx.main.perturbation_eval.metrics import METRICS
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.runs import evaluation
from ltx.main.runs.mask_job import MaskJob


@pytest.fixture
def make_run(make_explainee, tmp_path, monkeypatch):
    """`make_run(methods, unit_size)`: maps of a tiny explainee for six digits; the evaluator gets it too."""
    explainee = make_explainee("cnn", size=(16, 16), num_classes=10, seed=2)
    explainee.model.fc.weight.data.mul_(5)  # sure enough of its classes for AIC and SIC
    monkeypatch.setattr(evaluator, "explainee_of_run", lambda run, download: explainee)

    def make(methods, unit_size):
        images = DigitsOnPhotos("test", 6, image_size=(16, 16))
        options = BaselineOptions(method=",".join(methods), unit_size=unit_size, num_workers=0)
        fill_with_baselines(MaskJob(tmp_path / "run", options, explainee, images, range(6)))
        return tmp_path / "run"

    return make


@pytest.fixture
def run_folder(make_run):
    """Maps of two methods, two images a file."""
    return make_run(["random", "centre_gaussian"], 2)


def options_of(run_folder, **more):
    return PerturbationOptions(run_folder=run_folder, num_workers=0, batch_size=32, **more)


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_choice_of_metrics_has_its_folder(run_folder):
    evaluate(options_of(run_folder))
    evaluate(options_of(run_folder, metrics="RISE_deletion,POS"))
    evaluate(options_of(run_folder, fill="mean", metrics="DEL"))
    folders = {
        path.name: json.loads((path / "summary.json").read_text())
        for path in (run_folder / "results").iterdir()
    }
    assert set(folders) == {
        "perturbation-black-explained", "perturbation-black-explained-POS-RISE_deletion",
        "perturbation-mean-explained-DEL",
    }  # fmt: skip
    fast, some, _ = (folders[name] for name in sorted(folders))
    assert set(some["rows"]["random"]) == {"POS", "RISE_deletion"}
    assert some["rows"]["random"]["POS"] == fast["rows"]["random"]["POS"]
    assert fast["candidates"] == {"random": 1, "centre_gaussian": 1}
    assert fast["rows"]["random"]["gini"]["higher_is_better"] is None
    assert len(some["axes"]["RISE_deletion"]) == len(some["curves"]["random"]["RISE_deletion"]) == 17


def test_per_image_csv_holds_what_the_medians_need(run_folder):
    """AIC and SIC of the summary from the rows of the file alone."""
    rows = evaluate(options_of(run_folder, metrics="all"))
    folder = run_folder / "results" / "perturbation-black-explained-all"
    lines = read_csv(folder / "per_image.csv")
    assert len(lines) == 12
    counted = 0
    for variant in ("random", "centre_gaussian"):
        own = [line for line in lines if line["variant"] == variant]
        for metric in METRICS:
            figure = rows[variant][metric.name]
            texts = [line[metric.name] for line in own]
            assert figure["n"] == sum(text != "" for text in texts)
            if metric.name not in ("AIC", "SIC"):
                assert figure["mean"] == pytest.approx(np.mean([float(t) for t in texts]), rel=1e-4, abs=1e-4)
                continue
            points = [line[f"{metric.name}_points"] for line in own]
            assert [p == "" for p in points] == [t == "" for t in texts]
            if figure["n"] == 0:
                assert figure["mean"] is None
                continue
            details = [
                np.array([pair.split(":") for pair in p.split()], float).T.ravel() for p in points if p
            ]
            x, y = median_curve(np.array(details))
            assert figure["mean"] == pytest.approx(100 * np.trapezoid(y, x), rel=1e-4)
            counted += 1
    assert counted, "no image counts for AIC or SIC here"


def test_shards_add_up_exactly(run_folder):
    whole = evaluate(options_of(run_folder, metrics="all"))
    folder = run_folder / "results" / "perturbation-black-explained-all"
    before = [(folder / name).read_text() for name in ("per_image.csv", "summary.json")]
    folder.rename(run_folder / "whole")
    for shard in (0, 1):
        parts = evaluate(options_of(run_folder, metrics="all", num_shards=2, shard_index=shard))
        assert bool(parts) == (shard == 1)
    assert parts == whole
    assert [(folder / name).read_text() for name in ("per_image.csv", "summary.json")] == before


def test_goes_on_within_a_mask_file(make_run, tmp_path, monkeypatch):
    """Killed after the first part of a file, it scores only the others."""
    monkeypatch.setattr(evaluation, "PART_IMAGES", 2)
    folder = make_run(["random"], 6)
    arguments = {"run_folder": folder, "num_workers": 0, "batch_size": 8}
    expected = evaluate(PerturbationOptions(**arguments))
    (folder / "results").rename(tmp_path / "expected")
    original, scored = unit_scorer.UnitScorer._score_batch, []

    def dies(self, unit, classes, rows, read):
        scored.append(rows.tolist())
        if len(scored) == 2:
            raise KeyboardInterrupt
        return original(self, unit, classes, rows, read)

    monkeypatch.setattr(unit_scorer.UnitScorer, "_score_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate(PerturbationOptions(**arguments))
    assert scored == [[0, 1], [2, 3]]
    assert evaluate(PerturbationOptions(**arguments)) == expected
    assert scored == [[0, 1], [2, 3], [2, 3], [4, 5]]
    results = folder / "results" / "perturbation-black-explained"
    names = sorted(path.name for path in (results / "parts").iterdir())
    assert names == ["000000-000001.npz", "000002-000003.npz", "000004-000005.npz"]
    theirs = tmp_path / "expected" / "perturbation-black-explained" / "per_image.csv"
    assert (results / "per_image.csv").read_text() == theirs.read_text()


def test_table_names_the_number_of_candidates(run_folder, run_script):
    assert "maps tried" not in run_script(run_perturbation_eval, run_folder).out
    record = json.loads((run_folder / "run.json").read_text())
    record["candidates"] = {"random": 1, "centre_gaussian": 25}
    (run_folder / "run.json").write_text(json.dumps(record))
    lines = run_script(run_perturbation_eval, run_folder).out.splitlines()
    assert "maps tried" in lines[1]
    assert [line.split()[1] for line in lines if line.startswith(("random", "centre"))] == ["25", "1"]


def test_unknown_metric_is_one_line(run_folder, run_script):
    assert "no such metric" in run_script(run_perturbation_eval, run_folder, "--metrics", "IOU").error
    assert not (run_folder / "results").exists()
