"""From options to objectives and models, and the hash that says whose weights they are."""

import dataclasses

import pytest
import torch

from ltx.config import UserError
from ltx.main.common.options import PairOptions
from ltx.main.runs.build_images import open_image_set
from ltx.main.runs.build_models import (
    explainee_of_run,
    explainee_record,
    explainer_name,
    load_explainee,
    new_explainer,
    pretrained_explainer,
    start_from_plain,
    with_explainer_named,
)
from ltx.main.seg_classification.options import FinetuneOptions, PretrainOptions
from ltx.models.checkpoints import weights_sha256
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import read_explainer, save_explainer
from ltx.models.losses import Objective
from ltx.models.registry import create_model


def test_objective_takes_every_option():
    options = PairOptions(
        mask_loss="l1", mask_loss_mul=3.0, prediction_loss_mul=2.0, use_logits_only=True, is_ce_neg=True,
        mask_fill="blur", order_loss_mul=0.5, order_removal_mul=0.75,
        smooth_loss_mul=0.25, order_samples=6,
    )  # fmt: skip
    assert dataclasses.asdict(Objective.from_options(options)) == {
        "mask_loss": "l1", "mask_loss_mul": 3.0, "prediction_loss_mul": 2.0, "use_logits_only": True,
        "is_ce_neg": True, "fill": "blur", "order_loss_mul": 0.5, "order_removal_mul": 0.75,
        "smooth_loss_mul": 0.25,
        "order_samples": 6,
    }  # fmt: skip
    with pytest.raises(UserError, match="--order-samples 0: must be at least 1"):
        Objective.from_options(PairOptions(order_samples=0))


def test_names():
    options = PretrainOptions(explainee_model_name="resnet")
    assert explainer_name(options) == "resnet"
    other = PretrainOptions(explainee_model_name="resnet", explainer_model_name="vit_base_224")
    assert explainer_name(other) == "vit_base_224"


def test_new_explainers_are_drawn_with_the_seed(make_explainee):
    explainee = make_explainee()

    def head(seed):
        options = PretrainOptions(explainee_model_name="tiny_vit", seed=seed)
        return new_explainer(options, explainee).head[0].weight

    torch.manual_seed(5)
    assert torch.equal(head(1), head(1)) and not torch.equal(head(1), head(2))


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_hash_is_of_names_and_values(make_explainee, kind):
    first, same, other = make_explainee(kind), make_explainee(kind), make_explainee(kind, seed=1)
    assert weights_sha256(first) == weights_sha256(same) != weights_sha256(other)
    with torch.no_grad():
        next(same.model.parameters()).view(-1)[0] += 1e-6
    assert weights_sha256(first) != weights_sha256(same)


def test_hash_knows_the_dtype_and_the_layout():
    class One(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.register_buffer("x", value)

    value = torch.rand(4, 6)
    assert weights_sha256(One(value)) == weights_sha256(One(value.T.contiguous().T))
    assert weights_sha256(One(value)) != weights_sha256(One(value.double()))


def test_an_explainee_is_found_again_from_its_run(tiny_pair):
    options = FinetuneOptions(explainee_model_name="tiny", explainee_checkpoint=tiny_pair.explainee)
    explainee = load_explainee(options)
    run = {"explainee": explainee_record(options, explainee)}
    assert weights_sha256(explainee_of_run(run)) == weights_sha256(explainee)
    run["explainee"]["sha256"] = "0" * 64
    with pytest.raises(UserError, match="explainee 'tiny' are not those"):
        explainee_of_run(run)


def test_images_come_at_the_explainees_size(tiny_pair, write_images):
    root = write_images(["a.png"])
    options = FinetuneOptions(
        explainee_model_name="tiny", explainee_checkpoint=tiny_pair.explainee, images_path=str(root)
    )
    explainee = load_explainee(options)
    assert open_image_set(options, explainee)[0]["image"].shape == (3, 32, 32)
    assert open_image_set(options, explainee, "digits", "tune").split == "tune"


def test_naming_the_default_explainer_is_no_other_configuration():
    named = PairOptions(explainee_model_name="resnet", explainer_model_name="resnet")
    assert (
        with_explainer_named(PairOptions(explainee_model_name="resnet"))
        == with_explainer_named(named)
        == named
    )


# Class-conditional explainers.


@pytest.fixture
def options(tiny_pair, tmp_path) -> PretrainOptions:
    return PretrainOptions(
        explainee_model_name="tiny", explainee_checkpoint=tiny_pair.explainee, class_conditional=True
    )


def test_training_starts_from_the_plain_explainer_where_there_is_one(options, tiny_pair, places, tmp_path):
    explainee = load_explainee(options)
    explainer = new_explainer(options, explainee)
    fresh = explainer.state_dict()["head.0.weight"].clone()
    assert start_from_plain(options, explainer) is None
    assert torch.equal(explainer.head[0].weight, fresh)
    given = dataclasses.replace(options, explainer_checkpoint=tiny_pair.explainer)
    assert start_from_plain(given, explainer) == tiny_pair.explainer / "best.safetensors"
    plain = read_explainer(tiny_pair.explainer)
    assert all(torch.equal(value, explainer.state_dict()[key]) for key, value in plain.state_dict().items())
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(explainer(images, torch.tensor([0, 7])), plain(images))
    explainer.condition.film.bias.data.fill_(0.5)
    save_explainer(tmp_path / "best.safetensors", explainer, "tiny", {})
    again = new_explainer(options, explainee)
    assert start_from_plain(dataclasses.replace(options, explainer_checkpoint=tmp_path), again) is not None
    assert torch.equal(again.condition.film.bias, explainer.condition.film.bias)
    with pytest.raises(UserError, match="no such file"):
        start_from_plain(dataclasses.replace(options, explainer_checkpoint=tmp_path / "no"), again)


def test_files_of_another_number_of_classes_are_refused(options, make_backbone, tmp_path, monkeypatch):
    other = Explainee(make_backbone("vit", num_classes=7), load_explainee(options).spec, "tiny")
    torch.manual_seed(0)
    explainer = Explainer(create_model("tiny"), other.spec, "tiny", class_rows=torch.randn(7, 16))
    save_explainer(tmp_path / "best.safetensors", explainer, "tiny", {})
    given = dataclasses.replace(options, explainer_checkpoint=tmp_path)
    with pytest.raises(UserError, match="was trained for 7 classes and 'tiny' has 10"):
        pretrained_explainer(given, load_explainee(options))
