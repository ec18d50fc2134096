"""Mask runs through the script: what is written, going on, shards, and what may be wrong."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from ltx import config
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.runs import build_models, mask_job
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.main.runs.run_folder import write_manifest
from ltx.main.seg_classification import run_seg_cls_opt
from ltx.main.seg_classification.finetuning import Settings, finetune
from ltx.models.checkpoints import load_safetensors, save_safetensors
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import load_explainer, save_explainer
from ltx.models.losses import Objective

pytestmark = pytest.mark.usefixtures("no_drawing")
SHORT = ["--n_epochs_to_optimize_stage_b", 3, "--max-images", 5, "--unit-size", 2, "--finetune-lr", "1e-3"]
VARIANTS = ["best_loss", "best_pos", "last", "pltx"]


@pytest.fixture
def ltx(run_script, tiny_pair, tmp_path):
    """`ltx(*argv, name="run")`: a short LTX run of the tiny pair on 5 digits; returns its result."""

    def start(*argv, name="run"):
        places = ["--default-root-dir", tmp_path / "results", "--run-name", name]
        return run_script(run_seg_cls_opt, *tiny_pair.flags, *SHORT, *places, *argv)

    return start


def masks_of(folder) -> dict[str, np.ndarray]:
    """Everything in a run's mask files, all units joined."""
    units = [read_unit(path) for path in unit_files(folder)]
    joined = {f"mask {v}": np.concatenate([u.token_masks[v] for u in units]) for v in units[0].token_masks}
    joined |= {name: np.concatenate([u.arrays[name] for u in units]) for name in units[0].arrays}
    return joined | {name: np.concatenate([getattr(u, name) for u in units]) for name in ("index", "classes")}


def assert_equal_masks(first, second, atol=1e-5):
    first, second = masks_of(first), masks_of(second)
    assert first.keys() == second.keys()
    for name in first:
        tolerance = 1e-3 if name == "loss" else atol
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=tolerance, err_msg=name)


def test_mask_files_hold_what_finetuning_gives(ltx, tiny_pair, tmp_path):
    done = ltx("--evaluate", "False")
    assert done.closing == {"run": str(tmp_path / "results" / "run"), "results": {}}
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    explainer = Explainer.for_explainee("tiny", explainee)
    load_explainer(tiny_pair.explainer / "best.safetensors", explainer)
    digits = DigitsOnPhotos("test", image_size=(32, 32))
    images = torch.stack([digits[i]["image"] for i in range(5)])
    predicted = explainee(images).argmax(1)
    expected, figures = finetune(
        explainer, explainee, images, predicted, predicted, Objective(), Settings(3, 1e-3)
    )
    found = masks_of(tmp_path / "results" / "run")
    for variant in VARIANTS:
        np.testing.assert_allclose(found[f"mask {variant}"], expected[variant].numpy(), atol=1e-5)
    assert found["index"].tolist() == [0, 1, 2, 3, 4] and found["classes"].tolist() == predicted.tolist()
    assert found["label"].tolist() == digits.labels[:5] and found["predicted"].tolist() == predicted.tolist()
    assert found["steps"].tolist() == [3] * 5
    np.testing.assert_allclose(found["loss"], figures["loss"].numpy(), atol=1e-3)
    np.testing.assert_array_equal(found["best_step"], figures["best_step"].numpy())


def test_run_folder(ltx, tmp_path, tiny_pair):
    ltx("--evaluate", "False")
    folder = tmp_path / "results" / "run"
    assert [path.name for path in unit_files(folder)] == [
        "000000-000001.h5", "000002-000003.h5", "000004-000004.h5",
    ]  # fmt: skip
    run = json.loads((folder / "run.json").read_text())
    assert run["method"] == "ltx" and run["dataset"]["kind"] == "digits" and run["n_images"] == 5
    assert run["explainee"]["name"] == "tiny" and len(run["explainee"]["sha256"]) == 64
    assert run["explainee"]["checkpoint"].endswith("explainee.safetensors") and run["options"]["seed"] == 42
    attributes = read_unit(unit_files(folder)[0]).attributes
    assert attributes["run_hash"] == run["hash"] and attributes["method"] == "ltx"
    assert attributes["explainee"] == attributes["explainer"] == "tiny"
    assert list(attributes["input_size"]) == [32, 32] and attributes["score_class"] == "explained"
    with open(folder / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = DigitsOnPhotos("test").labels
    assert rows == [{"index": str(i), "image": str(i), "label": str(labels[i])} for i in range(5)]


def test_scores_at_the_end(ltx, tmp_path):
    done = ltx()
    assert sorted(done.closing["results"]) == VARIANTS
    assert set(done.closing["results"]["last"]) >= {"POS", "NEG", "DEL", "INS", "ADP", "PIC"}
    assert "POS ↓" in done.out and "NEG ↑" in done.out
    folder = tmp_path / "results" / "run" / "results" / "perturbation-black-explained"
    assert {"summary.json", "per_image.csv", "curves.png"} <= {path.name for path in folder.iterdir()}
    pos = masks_of(tmp_path / "results" / "run")["pos_auc"]
    assert done.closing["results"]["best_pos"]["POS"] == pytest.approx(np.nanmin(pos, axis=1).mean())
    assert done.closing["results"]["pltx"]["POS"] == pytest.approx(pos[:, 0].mean())


def test_pltx_alone(ltx, tmp_path):
    ltx("--evaluate", "False")
    done = ltx("--RUN-BASE-MODEL", "True", name="pltx")
    assert list(done.closing["results"]) == ["pltx"]
    first, second = (masks_of(tmp_path / "results" / name)["mask pltx"] for name in ("run", "pltx"))
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(
    "flags, variants",
    [
        (["--optimize-by-pos", "False"], ["best_loss", "best_neg", "last", "pltx"]),
        (["--early-stop", "True"], ["best_pos", "pltx"]),
        (["--select-best", "False"], ["best_loss", "last", "pltx"]),
    ],
)
def test_variants(ltx, tmp_path, flags, variants):
    ltx("--evaluate", "False", *flags)
    assert sorted(read_unit(unit_files(tmp_path / "results" / "run")[0]).variants) == variants


@pytest.mark.parametrize("score_class", ["explained", "target", "predicted"])
@pytest.mark.parametrize("by_target", ["True", "False"])
def test_classes(ltx, tmp_path, tiny_pair, by_target, score_class):
    flags = ["--train-model-by-target-gt-class", by_target, "--score-class", score_class]
    ltx("--RUN-BASE-MODEL", *flags)
    found = masks_of(tmp_path / "results" / "run")
    digits = DigitsOnPhotos("test", image_size=(32, 32))
    images = torch.stack([digits[i]["image"] for i in range(5)])
    predicted = Explainee.from_name("tiny", tiny_pair.explainee)(images).argmax(1).tolist()
    explained = digits.labels[:5] if by_target == "True" else predicted
    assert found["classes"].tolist() == explained
    path = tmp_path / "results" / "run" / "results" / f"perturbation-black-{score_class}" / "per_image.csv"
    with open(path, newline="") as file:
        scored = [int(row["scored_class"]) for row in csv.DictReader(file)]
    assert (
        scored == {"explained": explained, "target": digits.labels[:5], "predicted": predicted}[score_class]
    )


def test_true_class_selects_where_it_scores(ltx, tmp_path):
    """With --score-class target the stored AUC is the true class's: 85 at most where it is not on top."""
    ltx("--score-class", "target", "--evaluate", "False")
    found = masks_of(tmp_path / "results" / "run")
    wrong = found["predicted"] != found["label"]
    assert wrong.any() and np.nanmax(found["pos_auc"][wrong]) <= 85


# Results do not depend on how they were made.


@pytest.mark.parametrize("flags", [["--batch-size", 1], ["--batch-size", 2], ["--num-workers", 2]], ids=str)
def test_batch_size_and_workers_change_nothing(ltx, tmp_path, flags):
    ltx("--evaluate", "False")
    ltx("--evaluate", "False", *flags, name="other")
    assert_equal_masks(tmp_path / "results" / "run", tmp_path / "results" / "other")


def test_shards_change_nothing(ltx, tmp_path):
    whole = ltx()
    for index in (1, 0):
        last = ltx("--num-shards", 2, "--shard-index", index, name="shards")
        assert (last.closing["results"] == {}) == (index == 1)
    assert_equal_masks(tmp_path / "results" / "run", tmp_path / "results" / "shards", atol=0)
    for variant, row in whole.closing["results"].items():
        assert last.closing["results"][variant] == pytest.approx(row)


def test_shards_from_the_environment(ltx, tmp_path, monkeypatch):
    ltx("--evaluate", "False")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, files in (("0", 2), ("1", 3)):
        monkeypatch.setenv("RANK", rank)
        ltx("--evaluate", "False", name="shards")
        assert len(unit_files(tmp_path / "results" / "shards")) == files
    assert_equal_masks(tmp_path / "results" / "run", tmp_path / "results" / "shards", atol=0)


def test_killed_and_repeated(ltx, tmp_path, monkeypatch):
    """The kill hits while the second unit is at work; only that and the third are made by the second run."""
    ltx("--evaluate", "False")

    def dying(path, unit):
        if path.name.startswith("000002"):
            raise KeyboardInterrupt
        write(path, unit)

    write = mask_job.write_unit
    monkeypatch.setattr(mask_job, "write_unit", dying)
    assert ltx("--evaluate", "False", name="killed").code == 130
    folder = tmp_path / "results" / "killed"
    made = {path.name: path.stat().st_mtime_ns for path in unit_files(folder)}
    assert list(made) == ["000000-000001.h5"]
    monkeypatch.setattr(mask_job, "write_unit", write)
    assert ltx("--evaluate", "False", name="killed").code == 0
    assert made == {name: (folder / "masks" / name).stat().st_mtime_ns for name in made}
    assert_equal_masks(tmp_path / "results" / "run", folder, atol=0)
    for path in unit_files(folder):
        assert path.read_bytes() == (tmp_path / "results" / "run" / "masks" / path.name).read_bytes()


def test_a_finished_run_is_not_made_again(ltx, monkeypatch):
    first = ltx()
    monkeypatch.setattr(mask_job.MaskJob, "_make", lambda *_: pytest.fail("a unit was made again"))
    assert ltx().closing == first.closing


def test_another_configuration_into_the_same_folder(ltx, tmp_path, tiny_pair):
    ltx("--evaluate", "False")
    before = {path: path.read_bytes() for path in (tmp_path / "results" / "run").rglob("*") if path.is_file()}
    assert "(mask_loss was bce, now l1)" in ltx("--mask-loss", "l1").error
    assert "(score_class was explained, now target)" in ltx("--score-class", "target").error
    other = tmp_path / "other"
    shutil.copytree(tiny_pair.explainer, other)
    weights, metadata = load_safetensors(other / "best.safetensors")
    weights["head.2.bias"] = weights["head.2.bias"] + 1
    save_safetensors(other / "best.safetensors", weights, metadata)
    assert "explainer was" in ltx("--explainer-checkpoint", other).error
    assert before == {path: path.read_bytes() for path in before}


# Which images.


def test_manifests_choose_and_exclude(ltx, tmp_path):
    digits = DigitsOnPhotos("test")
    write_manifest(tmp_path / "some.csv", digits, [9, 4, 7, 2])
    write_manifest(tmp_path / "seen.csv", digits, [4, 300])
    flags = ["--RUN-BASE-MODEL", "--evaluate", "False"]
    ltx(*flags, "--manifest", tmp_path / "some.csv", "--exclude-manifest", tmp_path / "seen.csv")
    folder = tmp_path / "results" / "run"
    assert [line.split(",")[1] for line in (folder / "manifest.csv").read_text().split()[1:]] == [
        "9",
        "7",
        "2",
    ]
    assert masks_of(folder)["label"].tolist() == [digits.labels[i] for i in (9, 7, 2)]


def test_photographs(ltx, tmp_path, write_images, run_script, tiny_pair):
    """Any folder of pictures, without labels, explained by the predicted class; scored again from disk."""
    root = write_images([f"{i}.png" for i in range(3)])
    done = ltx("--images-path", root, "--max-images", 3)
    assert done.code == 0 and sorted(done.closing["results"]) == VARIANTS
    assert masks_of(tmp_path / "results" / "run")["label"].tolist() == [-1] * 3


# Bad input: one line each, nothing lost.


def test_true_class_without_labels(ltx, write_images, tmp_path):
    root = write_images(["a.png"])
    error = ltx("--images-path", root, "--train-model-by-target-gt-class", "True").error
    assert "--train-model-by-target-gt-class True needs labels and image a.png has none" in error
    assert "--score-class needs labels" in ltx("--images-path", root, "--score-class", "target").error
    assert not (tmp_path / "results").exists()


def test_labels_outside_the_classes(ltx, write_images, tmp_path):
    root = write_images(["a.png", "b.png"])
    (root / "labels.csv").write_text("img_name,label\na.png,9\nb.png,10\n")
    assert "label 10 of image b.png is outside the explainee's 10 classes" in ltx("--images-path", root).error


def test_unreadable_image_keeps_what_was_made(ltx, write_images, tmp_path):
    root = write_images([f"{i}.png" for i in range(5)])
    good = (root / "3.png").read_bytes()
    (root / "3.png").write_bytes(good[:100])
    error = ltx("--images-path", root, "--evaluate", "False", "--on-bad-image", "fail").error
    assert "cannot read image" in error and "3.png" in error
    folder = tmp_path / "results" / "run"
    assert [path.name for path in unit_files(folder)] == ["000000-000001.h5"]
    (root / "3.png").write_bytes(good)
    assert ltx("--images-path", root, "--evaluate", "False").code == 0 and len(unit_files(folder)) == 3


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--images-path", "nowhere"], "--images-path nowhere: no such file or folder"),
        (
            ["--explainer-checkpoint", "nowhere"],
            "--explainer-checkpoint nowhere: no such file or folder",
        ),
        (
            ["--explainee-checkpoint", "nowhere.pth"],
            "--explainee-checkpoint nowhere.pth: no such file or folder",
        ),
        (["--explainee-model-name", "vit_bse_224"], "nearest names: vit_base_224"),
        (["--explainer-model-name", "test_vitt"], "nearest names: test_vit"),
        (["--manifest", "nowhere.csv"], "nowhere.csv: no such file or folder"),
        (["--split", "validation"], "digits have no split 'validation'"),
        (["--max-images", "0"], "no images are left"),
        (["--finetune-lr", "fast"], "--finetune-lr: wanted a number or 'released', got 'fast'"),
        (["--finetune-lr", "released"], "best.pt does not exist"),
        (["--n_epochs_to_optimize_stage_b", "0"], "must be at least 1"),
        (["--batch-size", "0"], "must be at least 1"),
        (["--early-stop", "True", "--select-best", "False"], "stops by the scores that --select-best False"),
        (["--mask-scale", "2"], "holds an explainer of scale 1"),
        (["--mask-halo", "1"], "--mask-halo 1 must be at least 0 and below 1"),
        (["--unit-size", "0"], "must be at least 1"),
        (["--shard-index", "1"], "--num-shards and --shard-index belong together"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input(ltx, tmp_path, flags, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in ltx(*flags).error
    assert not list(tmp_path.rglob("*.h5"))


def test_weights_of_another_architecture(ltx, tmp_path, make_explainer):
    save_explainer(tmp_path / "other.safetensors", make_explainer("cnn"), "tiny", {})
    error = ltx("--explainer-checkpoint", tmp_path / "other.safetensors").error
    assert "does not fit explainer 'tiny'" in error and "other.safetensors" in error


def test_missing_images_and_explainers_are_told_before_weights_are_looked_for(
    run_script, places, monkeypatch
):
    """Which may mean a download of hundreds of MB."""
    monkeypatch.setattr(build_models, "load_explainee", lambda options: pytest.fail("weights were loaded"))
    error = run_script(run_seg_cls_opt).error
    assert str(config.IMAGENET_VAL) in error and "--images-path" in error
    error = run_script(run_seg_cls_opt, "--images-path", "digits").error
    assert "no pLTX explainer for the pair vit_base_224 / vit_base_224 (predicted)" in error


def test_lr_without_the_released_schedule_warns(ltx, caplog):
    ltx("--lr", "0.1", "--RUN-BASE-MODEL", "--evaluate", "False")
    assert "--lr has no effect without --finetune-lr released" in caplog.text
