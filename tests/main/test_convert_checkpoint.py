"""Published files through the scripts: conversion, and both models of a pair from one file."""

import json

import pytest
import torch

from ltx import config
from ltx.config import ALIASES
from ltx.main import convert_checkpoint
from ltx.main.common import cli
from ltx.main.convert_checkpoint import ConvertOptions
from ltx.main.runs.build_models import load_explainee, pretrained_explainer
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models import published
from ltx.models.checkpoints import load_state
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import load_explainer
from ltx.tests.support.published_files import SIDE, TINY, hugging_face_weights, save, vit_file


@pytest.fixture(autouse=True)
def tiny_aliases(monkeypatch, tmp_path):
    for name in [name for name, alias in ALIASES.items() if alias.published]:
        monkeypatch.delitem(ALIASES, name)
    for name, alias in TINY.items():
        monkeypatch.setitem(ALIASES, name, alias)
    monkeypatch.setattr(config, "CHECKPOINTS", tmp_path / "checkpoints")


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = 0
    try:
        cli.run_script(ConvertOptions, convert_checkpoint.main, [str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def outputs(path) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    explainee, explainer = Explainee.from_name("tiny_vit", path), Explainer.untrained("tiny_vit")
    load_explainer(path, explainer)
    with torch.no_grad():
        return explainee(images), explainer(images)


def test_converted_file_gives_the_same_outputs(tmp_path, capsys):
    path, *_ = vit_file(tmp_path / "in.ckpt")
    code, out, _ = run(capsys, path, tmp_path / "new" / "out.safetensors")
    assert code == 0
    line = json.loads(out.splitlines()[-1])
    assert line["run"] == str(tmp_path / "new" / "out.safetensors")
    # Query, key and value become one: 4 tensors fewer in each of 2 layers, weights and biases.
    assert line["results"]["explainer"]["tensors"] == len(hugging_face_weights(torch.Generator(), False)) - 8
    for ours, theirs in zip(outputs(tmp_path / "new" / "out.safetensors"), outputs(path), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert published.holds_pair(tmp_path / "new" / "out.safetensors")


def test_optimizer_state_is_kept_beside(tmp_path, capsys):
    weights = hugging_face_weights(torch.Generator().manual_seed(1), False)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(value) for value in weights.values()], lr=3e-4)
    for value in optimizer.param_groups[0]["params"]:
        value.grad = torch.ones_like(value)
    optimizer.step()
    state = {
        f"vit_for_classification_image.{k}": v
        for k, v in hugging_face_weights(torch.Generator().manual_seed(2), True).items()
    } | {f"vit_for_patch_classification.{k}": v for k, v in weights.items()}
    path = save(tmp_path / "in.ckpt", state, optimizer_states=[optimizer.state_dict()])
    assert run(capsys, path, tmp_path / "out.safetensors")[0] == 0
    kept = load_state(tmp_path / "out.pt")
    assert kept["global_step"] == 969
    assert kept["optimizer"]["param_groups"][0]["lr"] == 3e-4
    assert len(kept["optimizer"]["state"]) == len(Explainer.untrained("tiny_vit").trainable())


def test_files_that_are_no_published_ones_are_refused(tmp_path, capsys):
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "other.ckpt")
    code, out, err = run(capsys, tmp_path / "other.ckpt", tmp_path / "out.safetensors")
    assert (code, out) == (2, "")
    assert "other.ckpt is no published LTX checkpoint" in err
    state = {"vit_for_patch_classification.encoder.0.weight": torch.ones(1)}
    save(tmp_path / "strange.ckpt", state)
    code, _, err = run(capsys, tmp_path / "strange.ckpt", tmp_path / "out.safetensors")
    assert code == 2
    assert "fits none of the published pairs" in err
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("converted", [False, True])
def test_one_file_serves_explainer_and_explainee(converted, tmp_path, capsys):
    folder = config.CHECKPOINTS / "tiny_vit"
    path, weights, explainer_weights = vit_file(
        folder / "vit_target_best_auc__epoch=30_val_epoch_auc=20.ckpt"
    )
    if converted:
        assert run(capsys, path, folder / "target" / "best.safetensors")[0] == 0
        path.unlink()
        path = folder / "target" / "best.safetensors"
    options = FinetuneOptions(explainee_model_name="tiny_vit", train_model_by_target_gt_class=True)
    explainee = load_explainee(options)
    explainer, found, _ = pretrained_explainer(options, explainee)
    assert (explainee.checkpoint, found) == (path, path)
    assert torch.equal(explainee.model.head.weight, weights["classifier.weight"])
    assert torch.equal(explainer.head[2].weight, explainer_weights["patch_classifier.weight"])
