"""From options to objectives and models, and the hash that says whose weights they are."""

import dataclasses

import pytest
import torch

from config import FinetuneOptions, PairOptions, PretrainOptions, UserError
from main.pair import (
    explainee_of_run,
    explainee_record,
    explainer_name,
    is_published_pair,
    load_explainee,
    new_explainer,
    objective,
    open_image_set,
    weights_sha256,
    with_explainer_named,
)


@pytest.mark.parametrize(
    "explainee, explainer, weight",
    [("vit_base_224", None, 50), ("vit_small_224", None, 30), ("resnet", "vit_small_224", 30),
     ("vit_small_224", "resnet", 50), ("vit_digits", None, 50)],
)  # fmt: skip
def test_mask_weight(explainee, explainer, weight):
    options = PairOptions(explainee_model_name=explainee, explainer_model_name=explainer)
    assert objective(options).mask_loss_mul == weight
    assert objective(dataclasses.replace(options, mask_loss_mul=0.0)).mask_loss_mul == 0


def test_objective_takes_every_option():
    options = PairOptions(
        mask_loss="l1", mask_loss_mul=3.0, prediction_loss_mul=2.0, use_logits_only=True, is_ce_neg=True,
        mask_fill="blur", order_loss_mul=0.5,
    )  # fmt: skip
    assert dataclasses.asdict(objective(options)) == {
        "mask_loss": "l1", "mask_loss_mul": 3.0, "prediction_loss_mul": 2.0, "use_logits_only": True,
        "is_ce_neg": True, "fill": "blur", "order_loss_mul": 0.5, "order_samples": 2,
    }  # fmt: skip


def test_names():
    options = PretrainOptions(explainee_model_name="resnet")
    assert explainer_name(options) == "resnet" and is_published_pair(options)
    other = PretrainOptions(explainee_model_name="resnet", explainer_model_name="vit_base_224")
    assert explainer_name(other) == "vit_base_224" and not is_published_pair(other)
    assert not is_published_pair(PretrainOptions(explainee_model_name="vit_digits"))


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
