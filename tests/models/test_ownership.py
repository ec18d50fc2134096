"""An explainer belongs to one explainee: its file says which, and another is never taken unasked."""

import dataclasses
import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

from ltx import config
from ltx.config import UserError
from ltx.main.common.options import PairOptions
from ltx.main.runs.build_models import load_explainee, pretrained_explainer, start_from_plain
from ltx.models.checkpoints import load_metadata, save_safetensors
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import NoExplainerError, save_explainer
from ltx.models.ownership import EXPLAINEE_SHA256, ownership


@pytest.fixture
def pair(tiny_pair, places) -> tuple[PairOptions, PairOptions]:
    """Options of a pair in `checkpoints/`, and of the same with weights of the user's own."""
    folder = places / "checkpoints" / "tiny"
    folder.mkdir(parents=True)
    shutil.copy(tiny_pair.explainee, folder / "explainee.safetensors")
    options = PairOptions(explainee_model_name="tiny")
    explainee = load_explainee(options)
    explainer = Explainer.for_explainee("tiny", explainee)
    save_explainer(folder / "predicted" / "best.safetensors", explainer, "tiny", ownership(explainee))
    weights = load_file(tiny_pair.explainee)
    weights["head.bias"] = weights["head.bias"] + 1
    save_safetensors(places / "own.safetensors", weights, {})
    return options, dataclasses.replace(options, explainee_checkpoint=places / "own.safetensors")


def test_own_weights_under_an_alias_do_not_get_its_explainer(pair):
    shipped, own = pair
    assert pretrained_explainer(shipped, load_explainee(shipped))[0].is_trained
    with pytest.raises(NoExplainerError, match=r"best\.safetensors was trained for another explainee"):
        pretrained_explainer(own, load_explainee(own))


def test_weights_of_another_number_of_classes_do_not_either(pair, places, make_backbone):
    own = pair[1]
    weights = load_file(own.explainee_checkpoint)
    five = {k: v[:5] if k.startswith("head.") else v for k, v in weights.items()}
    save_safetensors(own.explainee_checkpoint, five, {})
    assert load_explainee(own).num_classes == 5
    with pytest.raises(NoExplainerError, match="another explainee"):
        pretrained_explainer(own, load_explainee(own))


def test_an_explainer_that_is_named_is_used_and_the_run_says_so(pair, places, caplog):
    own = dataclasses.replace(
        pair[1], explainer_checkpoint=places / "checkpoints" / "tiny" / "predicted" / "best.safetensors"
    )
    with caplog.at_level(logging.WARNING):
        assert pretrained_explainer(own, load_explainee(own))[0].is_trained
    assert "was trained for another explainee" in caplog.text


def test_the_same_weights_in_another_file_are_the_same_explainee(pair, places, tiny_pair):
    same = dataclasses.replace(pair[0], explainee_checkpoint=tiny_pair.explainee)
    assert pretrained_explainer(same, load_explainee(same))[0].is_trained


def test_run_json_speaks_for_a_file_of_a_former_version(pair, places):
    shipped, own = pair
    folder = places / "checkpoints" / "tiny" / "predicted"
    explainer = pretrained_explainer(shipped, load_explainee(shipped))[0]
    save_explainer(folder / "best.safetensors", explainer, "tiny", {})
    assert pretrained_explainer(own, load_explainee(own))[0].is_trained, "nothing says whose it is"
    record = {"explainee": {"sha256": load_explainee(shipped).sha256}}
    (folder / "run.json").write_text(json.dumps(record))
    assert pretrained_explainer(shipped, load_explainee(shipped))[0].is_trained
    with pytest.raises(NoExplainerError, match="another explainee"):
        pretrained_explainer(own, load_explainee(own))


def test_pretraining_does_not_start_from_another_explainees_explainer(pair):
    shipped, own = (dataclasses.replace(options, class_conditional=True) for options in pair)
    for options, found in ((shipped, True), (own, False)):
        explainee = load_explainee(options)
        explainer = Explainer.for_explainee("tiny", explainee, class_conditional=True)
        assert (start_from_plain(options, explainer, explainee) is not None) == found


@pytest.mark.parametrize("name", ["vit_digits", "efficientnet_lite0"])
def test_shipped_explainers_name_the_shipped_explainee(name):
    files = sorted((config.CHECKPOINTS / name).glob("*/best.safetensors"))
    assert len(files) >= 3
    for file in files:
        record = json.loads((file.parent / "run.json").read_text())
        assert load_metadata(file)[EXPLAINEE_SHA256] == record["explainee"]["sha256"]


def test_hash_needs_equal_weights_and_nothing_else(make_explainee):
    first, second = make_explainee(), make_explainee()
    assert first.sha256 == second.sha256
    with torch.no_grad():
        second = make_explainee()
        second.model.head.bias[0] += 1e-6
    assert first.sha256 != second.sha256


def test_a_file_that_cannot_be_read_is_one_line(pair, places):
    path = places / "checkpoints" / "tiny" / "predicted" / "best.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read"):
        pretrained_explainer(pair[0], load_explainee(pair[0]))
