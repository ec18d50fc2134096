import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common import cli
from ltx.main.runs.build_images import open_image_set
from ltx.main.runs.mask_files import read_unit
from ltx.main.segmentation_eval import run_segmentation_eval, seg_stage_a, seg_stage_b, sheets
from ltx.main.segmentation_eval.options import SegmentationOptions, SegStageAOptions, SegStageBOptions
from ltx.models.checkpoints import save_safetensors
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import save_explainer
from ltx.models.registry import create_model, input_spec
from ltx.tests.support.segmentation_sets import pictures, write_coco, write_gtsegs, write_voc

SCRIPTS = {
    "a": (SegStageAOptions, seg_stage_a.main),
    "b": (SegStageBOptions, seg_stage_b.main),
    "eval": (SegmentationOptions, run_segmentation_eval.main),
}
METRICS = {"PA", "mAP", "mIoU", "mF1", "mF1_released", "mAP_released"}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(sheets, "write_sheet", lambda *args: None)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    """Flags of an untrained pair: weights of an explainee, and an explainer of it."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    model = create_model("vit_digits")
    save_safetensors(folder / "explainee.safetensors", model.state_dict(), {})
    explainee = Explainee(model, input_spec(model), "vit_digits")
    save_explainer(
        folder / "best.safetensors", Explainer.for_explainee("vit_digits", explainee), "vit_digits", {}
    )
    return [
        "--explainer-model-name", "vit_digits", "--explainee-model-name", "vit_digits",
        "--explainee-checkpoint", str(folder / "explainee.safetensors"),
        "--explainer-checkpoint", str(folder / "best.safetensors"),
    ]  # fmt: skip


def call(script: str, *arguments, capsys) -> dict:
    """Runs a script and returns its closing line."""
    cli.run_script(*SCRIPTS[script], [str(argument) for argument in arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def stage(script: str, models, tmp_path, *arguments, capsys) -> dict:
    common = ["--default-root-dir", tmp_path / "runs", "--num-workers", 0, "--device", "cpu"]
    return call(script, *models, *common, *arguments, capsys=capsys)


def test_stages_on_digits_are_scored_and_can_be_scored_again(models, tmp_path, capsys):
    steps = ["--n_epochs_to_optimize_stage_b", 3, "--finetune-lr", "1e-3"]
    a = stage("a", models, tmp_path, "--max-images", 3, capsys=capsys)
    b = stage("b", models, tmp_path, "--dataset-type", "digits", "--max-images", 3, *steps, capsys=capsys)
    assert a["run"].endswith("digits-vit_digits-predicted-pltx")
    assert b["run"].endswith("digits-vit_digits-predicted-ltx")
    assert a["results"].keys() == {"pltx"}
    assert b["results"].keys() == {"pltx", "last", "best_loss", "best_pos"}
    assert all(row.keys() == METRICS for row in (*a["results"].values(), *b["results"].values()))
    assert a["results"]["pltx"] == pytest.approx(b["results"]["pltx"], abs=0.1)
    assert b["results"]["last"] != b["results"]["pltx"]
    assert call("eval", b["run"], "--num-workers", 0, capsys=capsys) == b
    cli.run_script(*SCRIPTS["eval"], [b["run"], "--num-workers", "0"])
    table = [
        line.split() for line in capsys.readouterr().out.splitlines() if line[:4] in ("meth", "last", "best")
    ]
    assert table[0][:3] == ["method", "maps", "tried"]
    assert {row[0]: row[1] for row in table[1:]} == {"last": "1", "best_loss": "3", "best_pos": "3"}


@pytest.mark.parametrize("kind", ["imagenet", "coco", "voc"])
def test_stages_take_every_set(models, tmp_path, capsys, kind):
    write_gtsegs(tmp_path / "gtsegs_ijcv.mat", *pictures([(20, 30), (18, 16)]))
    write_coco(tmp_path)
    write_voc(tmp_path)
    made = stage(
        "a", models, tmp_path, "--dataset-type", kind, "--segmentation-root", tmp_path, capsys=capsys
    )
    assert made["results"]["pltx"].keys() >= METRICS
    assert ("PA_void_ignored" in made["results"]["pltx"]) == (kind == "voc")


def test_target_class_is_explained_where_the_set_has_labels(models, tmp_path, capsys):
    write_gtsegs(tmp_path / "gtsegs_ijcv.mat", *pictures([(20, 30), (18, 16)]))
    flags = [
        "--dataset-type",
        "imagenet",
        "--segmentation-root",
        tmp_path,
        "--train-model-by-target-gt-class",
        "True",
    ]
    with pytest.raises(SystemExit) as stopped:
        stage("a", models, tmp_path, *flags, capsys=capsys)
    assert stopped.value.code == 2 and "needs labels and image 0 has none" in capsys.readouterr().err
    (tmp_path / "labels.csv").write_text("index,label\n0,7\n1,4\n")
    made = stage("a", models, tmp_path, *flags, capsys=capsys)
    (file,) = (tmp_path / "runs" / "imagenet_segmentation-vit_digits-target-pltx" / "masks").iterdir()
    np.testing.assert_array_equal(read_unit(file).classes, [7, 4])
    assert list((tmp_path / "runs").glob("*/results/segmentation-target/summary.json"))
    assert made["results"].keys() == {"pltx"}


def test_every_script_that_makes_maps_takes_a_set_with_object_masks(tmp_path):
    write_gtsegs(tmp_path / "gtsegs_ijcv.mat", *pictures([(20, 30), (18, 16), (9, 12)]))
    name = "vit_digits"
    explainee = Explainee(create_model(name), input_spec(create_model(name)), name)
    options = BaselineOptions(
        method="random",
        explainee_model_name=name,
        dataset_type="imagenet",
        segmentation_root=tmp_path,
        split="tune",
    )
    images = open_image_set(options, explainee)
    assert images.has_masks and images.names == ["0", "2"]
    with pytest.raises(UserError, match=r"--images-path and --dataset-type exclude each other"):
        open_image_set(replace(options, images_path="pictures"), explainee)


def test_stage_a_is_stage_b_without_finetuning():
    a, b = (
        {field.name: field.default for field in fields(kind)} for kind in (SegStageAOptions, SegStageBOptions)
    )
    assert {name for name in a if a[name] != b[name]} == {"RUN_BASE_MODEL"} and a.keys() == b.keys()


@pytest.mark.parametrize("name", ["vit_base_224", "resnet"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("imagenet", "looked for {root}/gtsegs_ijcv.mat; get it from http"),
        ("coco", "looked for annotations/instances_val2017.json in {root}/coco or {root}; get it from http"),
        ("voc", "in {root}/voc or {root}; get it from http"),
    ],
)
def test_an_absent_set_is_told_before_weights_are_looked_for(tmp_path, capsys, kind, message, name):
    for script in "ab":
        with pytest.raises(SystemExit) as stopped:
            flags = ["--explainer-model-name", name, "--explainee-model-name", name, "--dataset-type", kind]
            places = ["--segmentation-root", tmp_path, "--default-root-dir", tmp_path / "runs"]
            call(script, *flags, *places, capsys=capsys)
        written = capsys.readouterr()
        assert stopped.value.code == 2 and written.out == ""
        assert written.err.count("\n") == 1 and written.err.startswith("error: ")
        assert message.format(root=tmp_path) in written.err and "--segmentation-root" in written.err
    assert not (tmp_path / "runs").exists()


def test_an_image_that_turns_out_damaged_in_a_worker_is_one_line(models, tmp_path, capsys):
    write_coco(tmp_path)
    picture = tmp_path / "coco" / "val2017" / "000000000009.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])
    flags = ["--dataset-type", "coco", "--segmentation-root", tmp_path, "--num-workers", 1]
    with pytest.raises(SystemExit) as stopped:
        stage("a", models, tmp_path, *flags, capsys=capsys)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stopped.value.code == 2 and len(lines) == 1 and "000000000009.jpg" in lines[0]


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call("eval", tmp_path, capsys=capsys)
    assert stopped.value.code == 2 and f"{tmp_path} is not a run folder" in capsys.readouterr().err
