"""The evaluator on a tiny run folder: against a plain implementation, in parts, shards and after kills."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.common import cli
from ltx.main.perturbation_eval import evaluator, run_perturbation_eval
from ltx.main.perturbation_eval.metrics import choose_metrics
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.runs import tables
from ltx.main.runs.mask_files import read_unit, unit_files, unit_path, write_unit
from ltx.main.runs.run_folder import write_manifest
from ltx.main.seg_classification import run_seg_cls_opt
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.explainee import Explainee
from ltx.models.masking import upsample

pytestmark = pytest.mark.usefixtures("no_drawing")
N, UNIT = 6, 2
FAST = choose_metrics("fast")
NAMES = [metric.name for metric in FAST]


@pytest.fixture
def run(tiny_pair, tmp_path):
    """A run folder of 6 digits in 3 mask files: pLTX masks, random ones, signed maps of another method."""
    flags = [
        "--RUN-BASE-MODEL",
        "--max-images",
        N,
        "--unit-size",
        UNIT,
        "--run-name",
        "run",
        "--evaluate",
        "False",
    ]
    argv = [*tiny_pair.flags, *flags, "--default-root-dir", tmp_path]
    run_seg_cls_opt.main(cli.parse(FinetuneOptions, list(map(str, argv))))
    folder = tmp_path / "run"
    rng = np.random.default_rng(0)
    for path in unit_files(folder):
        unit = read_unit(path)
        unit.token_masks["random"] = rng.random((UNIT, 8, 8), dtype=np.float32)
        unit.saliency["signed"] = rng.normal(size=(UNIT, 32, 32)).astype(np.float32)
        write_unit(path, unit)
    return folder


def options(run, **changes):
    return PerturbationOptions(run_folder=run, num_workers=0, device="cpu", **changes)


def summary(run, settings="black-explained"):
    return json.loads((run / "results" / f"perturbation-{settings}" / "summary.json").read_text())


def per_image(run, settings="black-explained"):
    with open(run / "results" / f"perturbation-{settings}" / "per_image.csv", newline="") as file:
        return list(csv.DictReader(file))


def plain_scores(explainee, image, saliency, shown, c) -> dict[str, float]:
    """All metrics of one map, one forward pass at a time."""

    def ask(x):
        with torch.no_grad():
            logits = explainee(x[None])[0].double()
        return logits.softmax(0)[c].item(), float(logits.argmax().item() == c)

    scores, flat = {}, saliency.flatten()
    for names, order in (
        (("DEL", "POS"), torch.argsort(-flat, stable=True)),
        (("INS", "NEG"), torch.argsort(flat, stable=True)),
    ):
        readings = []
        for step in range(10):
            perturbed = image.clone()
            perturbed.view(3, -1)[:, order[: step * 1024 // 10]] = 0
            readings.append(ask(perturbed))
        for name, curve in zip(names, np.array(readings).T, strict=True):
            scores[name] = 100 * np.trapezoid(curve, dx=0.1)
    p = ask(image)[0]
    scaled = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    for suffix, mask in (("", shown), ("_minmax", scaled)):
        masked = ask(image * mask)[0]
        scores[f"ADP{suffix}"] = 100 * max(0, p - masked) / p
        scores[f"PIC{suffix}"] = 100.0 * (masked > p)
    return scores


@pytest.mark.parametrize("score_class", ["explained", "target"])
def test_against_a_plain_implementation(run, tiny_pair, score_class):
    rows = evaluator.evaluate(options(run, score_class=score_class))
    explainee, digits = (
        Explainee.from_name("tiny", tiny_pair.explainee),
        DigitsOnPhotos("test", image_size=(32, 32)),
    )
    found = {(int(row["index"]), row["variant"]): row for row in per_image(run, f"black-{score_class}")}
    assert set(found) == {(i, v) for i in range(N) for v in ("pltx", "random", "signed")}
    for path in unit_files(run):
        unit = read_unit(path)
        for k, i in enumerate(unit.index):
            image = digits[i]["image"]
            with torch.no_grad():
                predicted = explainee(image[None]).argmax().item()
            assert unit.classes[k] == predicted
            c = predicted if score_class == "explained" else digits.labels[i]
            for variant in unit.variants:
                if variant == "signed":
                    saliency = torch.from_numpy(unit.saliency[variant][k])
                    shown = (saliency - saliency.min()) / (saliency.max() - saliency.min())
                else:
                    token_mask = torch.from_numpy(unit.token_masks[variant][k])[None, None]
                    saliency = shown = upsample(token_mask, (32, 32))[0, 0]
                row = found[i, variant]
                assert int(row["scored_class"]) == c and row["image"] == str(i)
                for name, expected in plain_scores(explainee, image, saliency, shown, c).items():
                    assert float(row[name]) == pytest.approx(expected, rel=1e-3, abs=1e-3), (variant, name)
    for variant in ("pltx", "random", "signed"):
        for name in NAMES:
            mean = np.mean([float(found[i, variant][name]) for i in range(N)])
            assert rows[variant][name]["mean"] == pytest.approx(mean, rel=1e-4, abs=1e-4)


def test_progress_goes_on_where_the_killed_run_was(run, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    evaluator.evaluate(options(run))
    assert "6/6" in capsys.readouterr().err
    next((run / "results" / "perturbation-black-explained" / "parts").glob("*.npz")).unlink()
    evaluator.evaluate(options(run))
    said = capsys.readouterr().err
    assert "4/6" in said and "6/6" in said and " 0/" not in said


def test_summary_and_files(run):
    rows = evaluator.evaluate(options(run))
    content = summary(run)
    assert content["rows"] == rows and content["protocol"] == "perturbation"
    assert content["settings"]["fill"] == "black" and content["settings"]["score_class"] == "explained"
    assert content["run_hash"] == json.loads((run / "run.json").read_text())["hash"]
    assert {name: entry["higher_is_better"] for name, entry in rows["pltx"].items()} == {
        "POS": False, "NEG": True, "DEL": False, "INS": True, "ADP": False, "PIC": True,
        "ADP_minmax": False, "PIC_minmax": True, "mask_area": None, "gini": None,
    }  # fmt: skip
    assert {entry["n"] for row in rows.values() for entry in row.values()} == {N}
    for variant, curves in content["curves"].items():
        for name, curve in curves.items():  # the area of the mean curve is the mean of the areas
            area = 100 * np.trapezoid(curve, dx=0.1)
            assert rows[variant][name]["mean"] == pytest.approx(area, rel=1e-4, abs=1e-4)
    assert (run / "results" / "perturbation-black-explained" / "curves.png").is_file()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batch_size_changes_nothing(run, batch_size):
    whole = evaluator.evaluate(options(run))
    rows_before = per_image(run)
    shutil.rmtree(run / "results")
    assert tables.means_of(evaluator.evaluate(options(run, batch_size=batch_size))) == {
        variant: pytest.approx(row, rel=1e-5) for variant, row in tables.means_of(whole).items()
    }
    for before, after in zip(rows_before, per_image(run), strict=True):
        assert before["POS"] == after["POS"] and before["NEG"] == after["NEG"]


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_other_fills_stand_apart(run, fill):
    black = evaluator.evaluate(options(run))
    other = evaluator.evaluate(options(run, fill=fill))
    assert summary(run, f"{fill}-explained")["rows"] == other and summary(run)["rows"] == black
    assert black["random"]["DEL"]["mean"] != other["random"]["DEL"]["mean"]


def test_shards_add_up(run, tmp_path, caplog):
    whole = evaluator.evaluate(options(run))
    expected = per_image(run)
    shutil.rmtree(run / "results")
    parts = run / "results" / "perturbation-black-explained" / "parts"
    assert evaluator.evaluate(options(run, num_shards=2, shard_index=1)) == {}
    assert len(list(parts.glob("*.npz"))) == 1 and "other shards" in caplog.text
    assert not (parts.parent / "summary.json").exists()
    assert evaluator.evaluate(options(run, num_shards=2, shard_index=0)) == whole
    assert per_image(run) == expected


def test_shards_do_not_depend_on_what_is_there_already(run):
    """A shard whose masks are done scores its own, whatever the others have made by then."""
    hidden = {path: path.read_bytes() for path in unit_files(run)[1:]}
    for path in hidden:
        path.unlink()
    assert evaluator.evaluate(options(run, num_shards=2, shard_index=0)) == {}
    for path, content in hidden.items():
        path.write_bytes(content)
    assert evaluator.evaluate(options(run, num_shards=2, shard_index=1)) == {}  # the third file is shard 0's
    assert evaluator.evaluate(options(run, num_shards=2, shard_index=0))["pltx"]["POS"]["n"] == N


def test_goes_on_where_it_was_killed(run, monkeypatch):
    whole = evaluator.evaluate(options(run))
    shutil.rmtree(run / "results")
    score, scored = evaluator.UnitScorer.score, []

    def dying(*arguments, **named):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(1)
        return score(*arguments, **named)

    monkeypatch.setattr(evaluator.UnitScorer, "score", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(options(run))
    again = []
    monkeypatch.setattr(evaluator.UnitScorer, "score", lambda *a, **n: again.append(1) or score(*a, **n))
    assert evaluator.evaluate(options(run)) == whole and len(again) == 1
    evaluator.evaluate(options(run))
    assert len(again) == 1  # nothing is scored twice


def test_a_run_that_is_not_finished_says_so(run, caplog):
    unit_files(run)[1].unlink()
    rows = evaluator.evaluate(options(run))
    assert rows["pltx"]["POS"]["n"] == N - UNIT and "2 of 3 mask files" in caplog.text


def test_scores_of_other_metrics_are_made_again(run, monkeypatch):
    evaluator.evaluate(options(run))
    monkeypatch.setattr(evaluator, "choose_metrics", lambda text: FAST[::-1])
    monkeypatch.setattr(evaluator, "name_of", lambda metrics: "")
    rows = evaluator.evaluate(options(run))
    assert list(rows["pltx"]) == NAMES[::-1]
    assert rows["pltx"] == {name: summary(run)["rows"]["pltx"][name] for name in NAMES}


def test_excluded_images_are_left_out_of_every_figure(run, tmp_path):
    whole = evaluator.evaluate(options(run))
    write_manifest(tmp_path / "seen.csv", DigitsOnPhotos("test"), [1, 4, 300])
    rows = evaluator.evaluate(options(run, exclude_manifest=tmp_path / "seen.csv"))
    left = [row for row in per_image(run, "black-explained-without-seen")]
    assert {int(row["index"]) for row in left} == {0, 2, 3, 5}
    kept = [
        float(row["DEL"]) for row in per_image(run) if row["variant"] == "pltx" and row["index"] not in "14"
    ]
    assert rows["pltx"]["DEL"]["mean"] == pytest.approx(np.mean(kept), rel=1e-4)
    assert rows["pltx"]["DEL"]["n"] == 4 and whole["pltx"]["DEL"]["n"] == N
    assert summary(run, "black-explained-without-seen")["settings"]["excluded"] == 2


# The script, and what may be wrong.


def test_script(run, run_script):
    done = run_script(run_perturbation_eval, run, "--num-workers", 0, "--device", "cpu")
    assert done.code == 0 and done.closing["run"] == str(run)
    assert done.closing["results"] == tables.means_of(summary(run)["rows"])
    table = done.out.splitlines()
    assert "POS ↓" in table[1] and "NEG ↑" in table[1] and "PIC ↑" in table[1]
    assert [line.split()[0] for line in table[2:5]] == ["pltx", "random", "signed"]


def bad(run_script, run, *argv) -> str:
    return run_script(run_perturbation_eval, run, "--num-workers", 0, "--device", "cpu", *argv).error


def test_folders_that_are_no_runs(run_script, tmp_path):
    assert "no such file or folder" in bad(run_script, tmp_path / "nothing")


def test_no_masks_yet(run_script, run):
    for path in unit_files(run):
        path.unlink()
    assert "holds no mask files" in bad(run_script, run)


def test_damaged_mask_file(run_script, run):
    path = unit_path(run, range(2, 4))
    path.write_bytes(path.read_bytes()[:500])
    assert "000002-000003.h5" in bad(run_script, run)
    parts = run / "results" / "perturbation-black-explained" / "parts"
    assert [part.name for part in parts.iterdir()] == ["000000-000001.npz"]  # what was scored stays


def test_damaged_part(run_script, run):
    evaluator.evaluate(options(run))
    part = run / "results" / "perturbation-black-explained" / "parts" / "000000-000001.npz"
    part.write_bytes(part.read_bytes()[:100])
    assert "000000-000001.npz" in bad(run_script, run) and "delete it" in bad(run_script, run)


def test_missing_exclude_manifest_is_told_before_anything_is_scored(run_script, run):
    assert "--exclude-manifest nothing.csv: no such file or folder" in bad(
        run_script, run, "--exclude-manifest", "nothing.csv"
    )
    assert not (run / "results").exists()


def test_excluding_everything(run_script, run, tmp_path):
    write_manifest(tmp_path / "all.csv", DigitsOnPhotos("test"), range(397))
    assert "leaves no image" in bad(run_script, run, "--exclude-manifest", tmp_path / "all.csv")


def test_true_class_without_labels(run_script, run):
    for path in unit_files(run):
        unit = read_unit(path)
        unit.arrays["label"][:] = -1
        write_unit(path, unit)
    assert "--score-class target" in bad(run_script, run, "--score-class", "target")


def test_weights_that_have_changed(run_script, run, tiny_pair, tmp_path):
    from ltx.models.checkpoints import load_safetensors, save_safetensors

    weights, _ = load_safetensors(tiny_pair.explainee)
    weights["head.bias"] = weights["head.bias"] + 1
    save_safetensors(tmp_path / "other.safetensors", weights, {})
    record = json.loads((run / "run.json").read_text())
    record["explainee"]["checkpoint"] = str(tmp_path / "other.safetensors")
    (run / "run.json").write_text(json.dumps(record))
    assert "are not those that the masks were made for" in bad(run_script, run)
