import csv
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from ltx.config import UserError
from ltx.datasets.build import open_segmentation
from ltx.datasets.imagenet import open_folder
from ltx.main.baselines.options import BaselineOptions
from ltx.main.runs.mask_files import read_unit, unit_path, write_unit
from ltx.main.runs.mask_job import MaskJob
from ltx.main.runs.method import Maps, Method
from ltx.main.segmentation_eval import evaluator, sheets
from ltx.main.segmentation_eval.evaluator import evaluate
from ltx.main.segmentation_eval.options import SegmentationOptions
from ltx.main.segmentation_eval.sheets import ranked
from ltx.models.explainee import Explainee
from ltx.models.registry import InputSpec
from ltx.tests.support.segmentation_sets import pictures, write_gtsegs, write_voc

SIZE = (16, 20)


def constant_explainee() -> Explainee:
    """Says the same of every image."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE[0] * SIZE[1], 3))
    model.num_classes = 3
    return Explainee(model, InputSpec(SIZE, (0.0,) * 3, (1.0,) * 3), "constant")


def make_run(folder, images, unit_size: int = 2, shards: tuple[int, int] | None = None):
    """A run with token masks and saliency maps, some of them constant, and with the true masks."""
    if shards:
        shards = {"num_shards": shards[0], "shard_index": shards[1]}
    options = BaselineOptions(method="test", num_workers=0, unit_size=unit_size, **(shards or {}))

    def make(batch):
        rng = [np.random.default_rng(int(index)) for index in batch.index]
        tokens = torch.from_numpy(np.stack([r.random((4, 5), dtype=np.float32) for r in rng]))
        tokens[batch.index == 1] = 0.3
        noise = torch.from_numpy(np.stack([r.normal(size=SIZE).astype(np.float32) for r in rng]))
        truth = torch.stack([(images[int(i)]["mask"] == 1).float() for i in batch.index])
        return Maps({"pltx": tokens}, {"random": noise, "oracle": truth})

    torch.manual_seed(0)  # the same explainee in each shard
    MaskJob(folder, options, constant_explainee(), images, range(len(images))).fill(Method("test", make))
    return folder


@pytest.fixture(autouse=True)
def drawn(request, monkeypatch) -> list:
    """What is drawn; only the test of the files draws them, since that takes longer than everything else."""
    sheets_drawn = []
    if "files" not in request.node.name:
        monkeypatch.setattr(sheets, "write_sheet", lambda *args: sheets_drawn.append(args))
    return sheets_drawn


@pytest.fixture
def images(tmp_path):
    write_gtsegs(tmp_path / "gtsegs_ijcv.mat", *pictures([(20, 30), (18, 16), (16, 20), (40, 41), (9, 9)]))
    return open_segmentation("imagenet", tmp_path, None, None, SIZE)


@pytest.fixture
def run(tmp_path, images):
    return make_run(tmp_path / "run", images)


def options_of(run, **more) -> SegmentationOptions:
    return SegmentationOptions(run_folder=run, num_workers=0, **more)


def results_of(run):
    (folder,) = (run / "results").iterdir()
    return folder


def table(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_of_the_maps(run, images):
    rows = evaluate(options_of(run))
    units = [read_unit(path) for path in sorted((run / "masks").iterdir())]
    truth = np.stack([images[i]["mask"].numpy() for i in range(5)])
    for variant in ("pltx", "random"):
        maps = torch.cat([unit.maps(variant, SIZE) for unit in units]).numpy().astype(np.float64)
        found = maps > maps.mean(axis=(1, 2), keepdims=True) + 1e-9
        means = {name: entry["mean"] for name, entry in rows[variant].items()}
        assert means["PA"] == pytest.approx(100 * accuracy_score(truth.ravel(), found.ravel()))
        assert means["mIoU"] == pytest.approx(
            100 * jaccard_score(truth.ravel(), found.ravel(), average="macro")
        )
        f1 = [f1_score(t.ravel(), f.ravel(), zero_division=0) for t, f in zip(truth, found, strict=True)]
        assert means["mF1"] == pytest.approx(100 * np.mean(f1))
    assert {rows["oracle"][name]["mean"] for name in ("PA", "mAP", "mIoU", "mF1")} == {100.0}
    assert all(entry["n"] == 5 and entry["higher_is_better"] for entry in rows["pltx"].values())


def test_totals_can_be_made_again_from_per_image_csv(run):
    rows = evaluate(options_of(run))
    written = table(results_of(run) / "per_image.csv")
    assert len(written) == 15
    for variant, row in rows.items():
        of_variant = [line for line in written if line["variant"] == variant]
        assert [line["image"] for line in of_variant] == list("01234")
        tp, fp, fn, tn = (sum(int(line[name]) for line in of_variant) for name in ("TP", "FP", "FN", "TN"))
        assert tp + fp + fn + tn == 5 * SIZE[0] * SIZE[1]
        assert row["PA"]["mean"] == 100 * (tp + tn) / (tp + fp + fn + tn)
        assert row["mIoU"]["mean"] == (100 * tp / (tp + fp + fn) + 100 * tn / (tn + fp + fn)) / 2
        for column, name in (
            ("AP", "mAP"),
            ("F1", "mF1"),
            ("F1_released", "mF1_released"),
            ("AP_released", "mAP_released"),
        ):
            assert row[name]["mean"] == np.mean([float(line[column]) for line in of_variant])


def test_sheets_show_image_truth_map_and_threshold_from_best_to_worst(tmp_path, drawn):
    write_voc(tmp_path)
    images = open_segmentation("voc", tmp_path, None, None, SIZE)
    run = make_run(tmp_path / "run", images)
    evaluate(options_of(run))
    folder = results_of(run)
    drawn = {args[0]: args[1:] for args in drawn}
    assert drawn.keys() == {folder / f"{name}.png" for name in ("pltx", "random", "oracle")}
    f1 = [float(line["F1"]) for line in table(folder / "per_image.csv") if line["variant"] == "random"]
    order = [0, 1] if f1[0] >= f1[1] else [1, 0]
    rows, columns, captions = drawn[folder / "random.png"]
    assert columns == ("image", "ground truth", "saliency map", "thresholded map")
    noise = read_unit(run / "masks" / "000000-000001.h5").saliency["random"].astype(np.float64)
    for row, caption, place, i in zip(rows, captions, ("best", "worst"), order, strict=True):
        assert caption == f"{place}: F1 {f1[i]:.1f}\n{images.names[i]}"
        sample = images[i]
        np.testing.assert_array_equal(row[0], sample["image"].permute(1, 2, 0))
        grey = {0: 0.0, 1: 1.0, 255: 0.5}
        np.testing.assert_array_equal(row[1][..., 0], np.vectorize(grey.get)(sample["mask"].numpy()))
        assert row[2].min() == 0 and row[2].max() == 1
        np.testing.assert_array_equal(row[3][..., 2], noise[i] > noise[i].mean())


def test_summary_and_picture_files_are_written(run):
    rows = evaluate(options_of(run))
    folder = results_of(run)
    assert folder.name == "segmentation-predicted"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["rows"] == rows and summary["protocol"] == "segmentation"
    assert summary["run_hash"] == json.loads((run / "run.json").read_text())["hash"]
    assert {path.name for path in folder.glob("*.png")} == {"pltx.png", "random.png", "oracle.png"}


def test_shards_and_unit_sizes_change_nothing(run, images, tmp_path, caplog):
    whole = evaluate(options_of(run))
    shutil.copytree(run, tmp_path / "sharded", ignore=shutil.ignore_patterns("results"))
    with caplog.at_level(logging.WARNING):
        assert evaluate(options_of(tmp_path / "sharded", num_shards=2, shard_index=0)) == {}
    assert "other shards" in caplog.text
    assert not (results_of(tmp_path / "sharded") / "summary.json").exists()
    assert evaluate(options_of(tmp_path / "sharded", num_shards=2, shard_index=1)) == whole
    name = "results/segmentation-predicted/per_image.csv"
    assert (tmp_path / "sharded" / name).read_bytes() == (run / name).read_bytes()
    assert evaluate(options_of(make_run(tmp_path / "units", images, unit_size=5))) == whole


def test_a_shard_that_is_first_scores_the_units_that_it_makes(images, tmp_path, run):
    whole, folder = evaluate(options_of(run)), tmp_path / "shards"
    for shard in (0, 1):  # units 0 and 2, then unit 1
        make_run(folder, images, shards=(2, shard))
        rows = evaluate(options_of(folder, num_shards=2, shard_index=shard))
        assert rows == ({} if shard == 0 else whole)


def test_an_unfinished_run_is_scored_as_far_as_it_is_with_a_warning(run, caplog):
    whole = evaluate(options_of(run))
    part = unit_path(run, range(2, 4))
    content = part.read_bytes()
    part.unlink()
    shutil.rmtree(run / "results")
    with caplog.at_level(logging.WARNING):
        rows = evaluate(options_of(run))
    assert rows["pltx"]["PA"]["n"] == 3 and "only 2 of 3 mask files" in caplog.text
    part.write_bytes(content)
    assert evaluate(options_of(run)) == whole


def test_what_is_scored_is_not_scored_again(run, monkeypatch):
    whole = evaluate(options_of(run))
    scored = []
    true_score = evaluator.UnitScorer.score
    monkeypatch.setattr(
        evaluator.UnitScorer,
        "score",
        lambda self, unit, rows: scored.append(unit.index.tolist()) or true_score(self, unit, rows),
    )
    assert evaluate(options_of(run)) == whole and scored == []
    (results_of(run) / "parts" / "000002-000003.npz").unlink()
    assert evaluate(options_of(run)) == whole and scored == [[2, 3]]


def test_workers_change_nothing(run):
    alone = evaluate(options_of(run))
    shutil.rmtree(run / "results")
    assert evaluate(SegmentationOptions(run_folder=run, num_workers=2)) == alone


def test_images_can_be_left_out(run, tmp_path):
    (tmp_path / "seen.csv").write_text("image\n1\n4\n")
    rows = evaluate(options_of(run, exclude_manifest=tmp_path / "seen.csv"))
    assert rows["pltx"]["PA"]["n"] == 3
    folder = run / "results" / "segmentation-predicted-without-seen"
    assert {line["image"] for line in table(folder / "per_image.csv")} == {"0", "2", "3"}
    (tmp_path / "all.csv").write_text("image\n0\n1\n2\n3\n4\n")
    with pytest.raises(UserError, match="leaves no image"):
        evaluate(options_of(run, exclude_manifest=tmp_path / "all.csv"))


def test_void_of_voc_both_ways(tmp_path):
    write_voc(tmp_path)
    images = open_segmentation("voc", tmp_path, None, None, SIZE)
    run = make_run(tmp_path / "run", images)
    rows = evaluate(options_of(run))
    void = sum((images[i]["mask"] == 255).sum().item() for i in range(2))
    released, ignored = rows["oracle"]["PA"]["mean"], rows["oracle"]["PA_void_ignored"]["mean"]
    assert ignored == 100 and released == pytest.approx(100 * (1 - void / (2 * SIZE[0] * SIZE[1])))
    assert "mF1_released" in rows["oracle"] and "mF1_released_void_ignored" not in rows["oracle"]
    only = evaluate(options_of(run, voc_void="ignore"))
    assert only["oracle"] == {k: v for k, v in rows["oracle"].items() if k.endswith("_void_ignored")}
    names = {path.name for path in (run / "results").iterdir()}
    assert names == {"segmentation-predicted", "segmentation-predicted-void_ignore"}


def test_rank_of_pictures():
    assert ranked(np.array([5.0])) == [("best", 0)]
    assert ranked(np.array([1.0, 2.0])) == [("best", 1), ("worst", 0)]
    assert ranked(np.array([2.0, 3.0, 1.0])) == [("best", 1), ("median", 0), ("worst", 2)]
    f1 = np.arange(20.0)
    found = ranked(f1)
    assert [place for place, _ in found] == ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    assert [i for _, i in found] == [19, 18, 17, 11, 10, 9, 2, 1, 0]
    assert ranked(np.zeros(9))[:3] == [("best", 0), ("best", 1), ("best", 2)]


def test_images_without_object_masks_are_one_line(tmp_path, images):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    run = tmp_path / "run"
    (run / "masks").mkdir(parents=True)
    described = open_folder(folder, SIZE).describe()
    content = {"dataset": described, "options": {}, "hash": "", "input_size": SIZE, "n_images": 1}
    content |= {"identity": {}, "score_class": "explained", "explainee": {"name": "tiny", "sha256": ""}}
    (run / "manifest.csv").write_text("index,image,label\n0,a.png,-1\n")
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"explains images without object masks .*--dataset-type"):
        evaluate(options_of(run))


def test_a_set_that_has_moved_is_found_where_it_is_now(run, tmp_path):
    whole = evaluate(options_of(run))
    (tmp_path / "new").mkdir()
    (tmp_path / "gtsegs_ijcv.mat").rename(tmp_path / "new" / "gtsegs_ijcv.mat")
    with pytest.raises(UserError, match="pass its folder with --segmentation-root"):
        evaluate(options_of(run))
    assert evaluate(options_of(run, segmentation_root=tmp_path / "new")) == whole


def test_maps_that_are_not_finite_are_one_line(run):
    path = unit_path(run, range(2, 4))
    unit = read_unit(path)
    unit.saliency["random"][1, 0, 0] = np.nan
    write_unit(path, unit)
    with pytest.raises(
        UserError, match=r"000002-000003\.h5, image 3: its map 'random' holds values that are not finite"
    ):
        evaluate(options_of(run))


def test_a_run_without_masks_is_one_line(run):
    shutil.rmtree(run / "masks")
    with pytest.raises(UserError, match="holds no mask files"):
        evaluate(options_of(run))
