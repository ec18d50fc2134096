"""Pretraining through the script: what is written, going on, the published options, what may be wrong."""

import csv
import json

import pytest
import torch
from safetensors.torch import save_file

from ltx import config
from ltx.main.runs import build_models
from ltx.main.seg_classification import pretraining, run_seg_cls, run_seg_cls_opt, validation
from ltx.models.checkpoints import load_safetensors
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import load_explainer
from ltx.models.registry import create_model

pytestmark = pytest.mark.usefixtures("no_drawing")
SHORT = ["--train-images", 6, "--val-images", 3, "--n-epochs", 2, "--batch-size", 4, "--save-every", 1]


@pytest.fixture
def start(run_script, tiny_pair, places):
    """`start(*argv)`: a short pretraining of the tiny pair on digits; returns its result."""
    flags = tiny_pair.flags[:4] + tiny_pair.flags[6:]  # without an explainer's checkpoint

    def start(*argv):
        return run_script(run_seg_cls, *flags, *SHORT, *argv)

    return start


def weights(folder, name="last"):
    return load_safetensors(folder / f"{name}.safetensors")[0]


def test_run(start, places):
    done = start()
    folder = places / "checkpoints" / "tiny" / "predicted"
    assert done.closing["run"] == str(folder) and set(done.closing["results"]) == {"pltx"}
    assert {"run.json", "epochs.csv", "best.safetensors", "last.safetensors", "last.pt", "state.pt"} <= {
        path.name for path in folder.iterdir()
    }
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["epoch_000.png", "epoch_001.png"]
    with open(folder / "epochs.csv", newline="") as file:
        epochs = list(csv.DictReader(file))
    best = min(epochs, key=lambda row: float(row["val_POS"]))
    assert done.closing["results"]["pltx"]["POS"] == pytest.approx(float(best["val_POS"]), abs=1e-5)
    assert done.closing["results"]["pltx"]["epoch"] == int(best["epoch"])
    run = json.loads((folder / "run.json").read_text())
    assert run["n_train"] == 6 and run["n_val"] == 3
    plan = pretraining.Plan(2, 4, 2e-4, 0.01, 8, False)
    assert run["highest_rate"] == pytest.approx(plan.highest_rate(6))
    assert f"the rate will reach {plan.highest_rate(6):.3g}" in done.out


@pytest.mark.parametrize(("bound", "kind"), [("_EMPTY", "empty"), ("_FULL", "full")])
def test_a_collapsed_explainer_is_no_success(bound, kind, start, caplog, monkeypatch):
    assert "collapsed" not in start().closing and "collapsed" not in caplog.text
    monkeypatch.setattr(validation, bound, 1.0 if kind == "empty" else 0.0)
    assert start().closing["collapsed"] is True
    assert f"the explainer has collapsed: its masks are {kind} (mean area 0." in caplog.text


def test_manifests_list_what_was_read(start, places):
    start()
    folder = places / "checkpoints" / "tiny" / "predicted"
    train, val = (
        [line.split(",")[1] for line in (folder / f"{name}_manifest.csv").read_text().split()[1:]]
        for name in ("train", "val")
    )
    assert len(train) == 6 and len(val) == 3
    record = json.loads((folder / "run.json").read_text())
    assert (record["train_dataset"]["split"], record["dataset"]["split"]) == ("fit", "tune")


def test_killed_and_repeated(start, places, monkeypatch):
    start("--run-name", "whole")
    save, saves = pretraining.save_state, []

    def dying(path, state):
        save(path, state)
        saves.append(path.name)
        if saves.count("state.pt") == 3:  # in the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "save_state", dying)
    assert start("--run-name", "killed").code == 130
    monkeypatch.setattr(pretraining, "save_state", save)
    assert start("--run-name", "killed").code == 0
    folder = places / "checkpoints" / "tiny"
    for name in ("best", "last"):
        first, second = weights(folder / "whole", name), weights(folder / "killed", name)
        assert all(torch.equal(first[key], second[key]) for key in first)
    for name in ("train_manifest.csv", "val_manifest.csv"):
        assert (folder / "whole" / name).read_bytes() == (folder / "killed" / name).read_bytes()


@pytest.mark.parametrize("conditional", [False, True])
def test_a_frozen_backbone_keeps_the_explainees_weights(start, places, tiny_pair, conditional):
    done = start("--freeze-backbone", True, "--augment", True, "--class-conditional", conditional)
    assert "starts from" not in done.out  # a plain explainer's backbone is another one
    trained = weights(places / "checkpoints" / "tiny" / ("class_conditional" if conditional else "predicted"))
    torch.manual_seed(42)
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    fresh = Explainer.for_explainee("tiny", explainee, class_conditional=conditional).state_dict()
    changed = {name for name, value in trained.items() if not torch.equal(value, fresh[name])}
    assert "head.0.weight" in changed and not any(name.startswith("backbone.") for name in changed)


def test_another_configuration_is_refused(start, places):
    start()
    before = (places / "checkpoints" / "tiny" / "predicted" / "best.safetensors").read_bytes()
    assert "(n_epochs was 2, now 5)" in start("--n-epochs", 5).error
    assert "(lr was 0.0002, now 0.1)" in start("--lr", 0.1).error
    assert (places / "checkpoints" / "tiny" / "predicted" / "best.safetensors").read_bytes() == before


def test_the_result_is_what_finetuning_takes(start, places, run_script, tiny_pair):
    """Pretrained target explainer -> --RUN-BASE-MODEL masks, found without a flag."""
    start("--train-model-by-target-gt-class", "True", "--half-checkpoints", "True")
    flags = tiny_pair.flags[:4] + tiny_pair.flags[6:]
    target = ["--train-model-by-target-gt-class", "True"]
    short = ["--RUN-BASE-MODEL", "True", "--max-images", 2]
    done = run_script(run_seg_cls_opt, *flags, *target, *short)
    path = places / "checkpoints" / "tiny" / "target" / "best.safetensors"
    assert done.code == 0 and f"pLTX explainer: {path}" in done.out
    assert done.closing["run"] == str(places / "data" / "results" / "digits-tiny-target-pltx")
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    metadata = load_explainer(path, Explainer.for_explainee("tiny", explainee))
    assert metadata["class"] == "target" and metadata["explainee"] == "tiny"


def test_released_rate_goes_on_from_the_stored_optimiser(start, run_script, tiny_pair, places):
    start("--schedule-images", 100)
    flags = tiny_pair.flags[:4] + tiny_pair.flags[6:]
    short = ["--max-images", 1, "--n_epochs_to_optimize_stage_b", 3, "--evaluate", "False"]
    done = run_script(run_seg_cls_opt, *flags, *short, "--finetune-lr", "released")
    step = load_safetensors(places / "checkpoints" / "tiny" / "predicted" / "best.safetensors")[1][
        "global_step"
    ]
    plan = pretraining.Plan(2, 4, 2e-4, 0.01, 100, False)
    expected = f"first update {plan.rate(step - 1):.3g} (stored), then from {2e-3 * (step + 1) / 250_000:.3g}"
    assert done.code == 0 and expected in done.out


def test_published_command_on_a_small_imagenet(run_script, places, write_images, monkeypatch):
    """The README's command as it stands, with a small network behind the alias and two classes of images."""
    small = config.Alias("test_vit.r160_in1k", "vit_base", published=True)
    monkeypatch.setitem(config.ALIASES, "vit_base_224", small)
    write_images(
        [f"{wnid}/{i}.JPEG" for wnid in ("n01440764", "n15075141") for i in range(2)], config.IMAGENET_VAL
    )
    folder = places / "checkpoints" / "vit_base"
    folder.mkdir(parents=True)
    save_file(create_model("vit_base_224").state_dict(), folder / "explainee.safetensors")
    published = (
        "--enable-checkpointing True --explainer-model-name vit_base_224 --explainee-model-name vit_base_224 "
        "--mask-loss-mul 50 --train-model-by-target-gt-class True --n-epochs 2 --train-n-label-sample 1"
    )
    done = run_script(run_seg_cls, *published.split(), "--num-workers", 0, "--device", "cpu")
    assert done.code == 0 and "training on 2 images, validating on 2" in done.out
    assert "of --lr 0.002 (schedule sized on 50000 images)" in done.out
    manifest = (folder / "target" / "train_manifest.csv").read_text().split()[1:]
    assert sorted(int(line.rsplit(",", 1)[1]) for line in manifest) == [0, 999]
    finetune = (
        "--explainer-model-name vit_base_224 --explainee-model-name vit_base_224 "
        "--train-model-by-target-gt-class True"
    )
    short = ["--n_epochs_to_optimize_stage_b", 2, "--num-workers", 0, "--device", "cpu"]
    done = run_script(run_seg_cls_opt, *finetune.split(), *short)
    assert done.code == 0 and sorted(done.closing["results"]) == ["best_loss", "best_pos", "last", "pltx"]
    assert done.closing["run"].endswith("folder-vit_base-target-ltx")


# Bad input.


def test_too_few_images_per_class(run_script, tiny_pair, places, write_images):
    root = write_images(["n01440764/a.png", "n01443537/a.png", "n01443537/b.png"])
    flags = [*tiny_pair.flags[:4], "--images-path", root, "--device", "cpu", "--num-workers", 0]
    error = run_script(run_seg_cls, *flags).error
    assert "class 0 has 1 images" in error and "--train-images and --val-images" in error


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--images-path", "nowhere"], "--images-path nowhere: no such file or folder"),
        (["--train-images", 100000], "there are only 24000"),
        (["--n-epochs", 0], "must be at least 1"),
        (["--train-manifest", "nowhere.csv"], "nowhere.csv: no such file or folder"),
        (["--train-split", "all"], "digits have no split 'all'"),
        (["--explainer-model-n-first-layers-to-freeze", 9], "'tiny' has 2 layers"),
        (
            ["--explainee-checkpoint", "nowhere.pth"],
            "--explainee-checkpoint nowhere.pth: no such file or folder",
        ),
        (["--mask-loss-mul", "inf"], "the loss is not finite at step 0"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input(start, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in start(*argv).error


def test_missing_images_are_told_before_weights_are_looked_for(run_script, places, monkeypatch):
    monkeypatch.setattr(build_models, "load_explainee", lambda options: pytest.fail("weights were loaded"))
    assert str(config.IMAGENET_VAL) in run_script(run_seg_cls).error
