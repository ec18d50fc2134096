"""Recipes: the table's values, what beats them, and runs whose explainer and folder they choose."""

import dataclasses
import json
import typing

import pytest
import torch

from ltx import config
from ltx.config import ALIASES, Rule, UserError
from ltx.main import explain
from ltx.main.class_eval.options import ClassEvalOptions
from ltx.main.common import cli
from ltx.main.common.options import ObjectiveOptions
from ltx.main.common.recipes import recipe_values
from ltx.main.explanation.options import ExplainOptions
from ltx.main.runs.build_models import settled
from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt
from ltx.main.seg_classification.options import FinetuneOptions, PretrainOptions
from ltx.main.segmentation_eval.options import SegStageAOptions, SegStageBOptions
from ltx.models.checkpoints import load_metadata
from ltx.models.explainer import Explainer
from ltx.models.losses import Objective

pytestmark = pytest.mark.usefixtures("no_drawing")
FINETUNING = [FinetuneOptions, SegStageAOptions, SegStageBOptions]
CLASSES = [PretrainOptions, *FINETUNING, ClassEvalOptions, ExplainOptions]


def needed(options_class) -> dict:
    """Required fields, and an explainee for all alike."""
    given = {"input": ()} if options_class is ExplainOptions else {}
    return given | {"explainee_model_name": "vit_digits"}


@pytest.mark.parametrize("options_class", CLASSES)
def test_released_is_the_default(options_class):
    given = needed(options_class)
    found = settled(options_class(**given))
    assert found == settled(options_class(**given, recipe="released")) == settled(found)
    assert Objective.from_options(found) == Objective() and found.recipe == "released"


@pytest.mark.parametrize("options_class", CLASSES)
def test_ordered(options_class):
    options = settled(options_class(**needed(options_class), recipe="ordered"))
    for name, value in recipe_values("ordered", options_class.stage, "vit_digits").items():
        if hasattr(options, name):
            assert getattr(options, name) == value, name
    assert options.mask_loss == "l1" and options.order_loss_mul == 1
    if options_class.stage == "finetuning":
        assert options.finetune_lr == 2e-4 and options.mask_loss_mul == 3 and options.batch_size == "auto"


def test_what_is_given_beats_the_recipe_even_where_it_is_the_usual_default():
    given = ["--mask-loss", "bce", "--order-loss-mul", "0", "--finetune-lr", "5e-5"]
    options = settled(cli.parse(FinetuneOptions, ["--recipe", "ordered", *given]))
    assert (options.mask_loss, options.order_loss_mul, options.finetune_lr) == ("bce", 0.0, 5e-5)
    assert options.mask_loss_mul == 3


@pytest.mark.parametrize(
    ("explainer", "explainee", "rate", "images"),
    [("resnet", "resnet", 2e-3, 50_000), ("vit_base_224", "vit_base_224", 2e-3, 50_000),
     ("resnet", "vit_base_224", 2e-4, None), ("vit_digits", "vit_digits", 2e-4, None),
     ("resnet18", "resnet18", 2e-4, None)],
)  # fmt: skip
def test_published_pairs_have_their_own_rate_and_schedule(explainer, explainee, rate, images):
    for recipe in ("released", "ordered"):
        options = PretrainOptions(
            explainer_model_name=explainer, explainee_model_name=explainee, recipe=recipe
        )
        wanted = 5e-4 if (recipe, explainer) == ("ordered", "vit_digits") else rate
        assert (settled(options).lr, settled(options).schedule_images) == (wanted, images)


@pytest.mark.parametrize("options_class", [PretrainOptions, FinetuneOptions])
@pytest.mark.parametrize(
    ("explainee", "explainer", "weight"),
    [("vit_base_224", None, 50), ("vit_small_224", None, 30), ("resnet", "vit_small_224", 30),
     ("vit_small_224", "resnet", 50), ("vit_digits", None, 50)],
)  # fmt: skip
def test_weight_of_the_mask_loss(options_class, explainee, explainer, weight):
    options = options_class(explainee_model_name=explainee, explainer_model_name=explainer)
    assert settled(options).mask_loss_mul == weight
    assert settled(dataclasses.replace(options, mask_loss_mul=0.0)).mask_loss_mul == 0


def test_unknown_recipes_are_refused():
    with pytest.raises(UserError, match=r"--recipe: invalid choice: 'best'.*released.*ordered"):
        cli.parse(PretrainOptions, ["--recipe", "best"])
    with pytest.raises(UserError, match="there is no recipe 'best'; choose from released, ordered"):
        settled(PretrainOptions(recipe="best"))


def test_the_table_names_open_options_and_values_of_their_types():
    """In a script of the rule's stage, with None as default, so that the flag is known from the rule."""
    classes = {"pretraining": [PretrainOptions], "finetuning": FINETUNING}
    names = {None, "tokens", "feature_map", "published", *ALIASES}
    for rule in (rule for rules in config.RECIPES.values() for rule in rules):
        assert rule.explainer in names and rule.stage in (None, *classes)
        for options_class in classes[rule.stage] if rule.stage else [PretrainOptions, *FINETUNING]:
            fields = {field.name: field for field in dataclasses.fields(options_class)}
            hints = typing.get_type_hints(options_class)
            for name, value in rule.values.items():
                assert fields[name].default is None and name != "recipe", (name, options_class)
                assert isinstance(value, hints[name]), (name, value)
                assert value in (fields[name].metadata["choices"] or (value,)), (name, value)


def test_types_do_not_change_in_subclasses():
    for options_class in CLASSES:
        for base in options_class.__mro__[1:-1]:
            hints, own = typing.get_type_hints(options_class), typing.get_type_hints(base)
            assert {name: hints[name] for name in own} == own, base


def test_every_field_of_the_objective_has_its_option_and_its_type():
    options, fields = typing.get_type_hints(ObjectiveOptions), typing.get_type_hints(Objective)
    own = Objective().as_options()
    assert options.keys() == own.keys() and all(options[name] == type(own[name]) | None for name in own)
    assert len(fields) == len(own)


@pytest.mark.parametrize("name", list(ALIASES))
def test_kinds_of_the_aliases(name):
    with torch.device("meta"):
        assert (ALIASES[name].kind == "tokens") == Explainer.untrained(name).has_tokens


@pytest.fixture
def table(monkeypatch):
    """A recipe `own` of rules for stages, kinds and names."""
    rules = (
        Rule(values={"mask_loss_mul": 1.0, "finetune_lr": 1e-3, "lr": 0.5}, stage=None),
        Rule(values={"finetune_lr": 2e-3}, explainer="feature_map"),
        Rule(values={"mask_loss_mul": 7.0}, explainer="tokens"),
        Rule(values={"finetune_lr": 3e-3}, stage="finetuning", explainer="densenet"),
        Rule(values={"lr": 0.25}, stage="pretraining"),
    )
    monkeypatch.setitem(config.RECIPES, "own", rules)


@pytest.mark.parametrize(
    "explainer, rate, weight",
    [("vit_digits", 1e-3, 7.0), ("efficientnet_lite0", 2e-3, 1.0), ("densenet", 3e-3, 1.0),
     ("resnet18", 2e-3, 1.0)],
)  # fmt: skip
def test_rules_hold_for_kinds_and_names_and_later_ones_count(table, explainer, rate, weight):
    for given in (
        {"explainee_model_name": explainer},
        {"explainer_model_name": explainer, "explainee_model_name": "resnet"},
    ):
        options = settled(FinetuneOptions(recipe="own", **given))
        assert (options.finetune_lr, options.mask_loss_mul, options.lr) == (rate, weight, 0.5)
        options = settled(PretrainOptions(recipe="own", **given))
        assert (options.lr, options.mask_loss_mul) == (0.25, weight)


def test_a_rule_for_a_kind_needs_an_explainer_that_there_is(table):
    with pytest.raises(UserError, match="unknown model 'vit_digit'"):
        settled(FinetuneOptions(recipe="own", explainee_model_name="vit_digit"))


# Runs.


@pytest.fixture
def scripts(run_script, tiny_pair, places):
    """`scripts(module, *argv)` with the tiny explainee, whose explainer is looked for in its usual place."""
    explainee = ["--explainee-model-name", "tiny", "--explainee-checkpoint", tiny_pair.explainee]
    images = ["--images-path", "digits", "--num-workers", "0"]
    train = ["--train-images", 4, "--val-images", 2, "--n-epochs", 1]
    masks = ["--max-images", 2, "--n_epochs_to_optimize_stage_b", 2, "--evaluate", "False"]
    own = {run_seg_cls: [*images, *train], run_seg_cls_opt: [*images, *masks], explain: []}

    def run(module, *argv):
        return run_script(module, *explainee, "--device", "cpu", *own[module], *argv)

    return run


def run_json(result) -> dict:
    assert result.code == 0, result.err
    with open(f"{result.closing['run']}/run.json") as file:
        return json.load(file)


def test_a_recipe_from_pretraining_to_masks(scripts, places, write_images, caplog):
    pretrained = run_json(scripts(run_seg_cls, "--recipe", "ordered"))
    best = places / "checkpoints" / "tiny" / "predicted-ordered" / "best.safetensors"
    assert pretrained["identity"]["options"]["recipe"] == "ordered"
    assert pretrained["options"]["mask_loss"] == "l1" and pretrained["options"]["order_loss_mul"] > 0
    metadata = load_metadata(best)
    assert metadata["recipe"] == "ordered" and metadata["objective"]["mask_loss"] == "l1"
    made = scripts(run_seg_cls_opt, "--recipe", "ordered")
    run = run_json(made)
    assert made.closing["run"].endswith("results/digits-tiny-predicted-ltx-ordered")
    assert run["explainer"]["checkpoint"] == str(best) and f"pLTX explainer: {best}" in made.out
    options = settled(FinetuneOptions(explainee_model_name="tiny", recipe="ordered"))
    for name in ("recipe", "mask_loss", "mask_loss_mul", "order_loss_mul", "finetune_lr"):
        assert run["identity"]["options"][name] == getattr(options, name), name
    photo = write_images(["photo.jpg"]) / "photo.jpg"
    shown = scripts(explain, "--recipe", "ordered", "--input", photo, "--steps", 2)
    plan = run_json(shown)["identity"]["plan"]
    assert shown.closing["run"].endswith("explain-photo-tiny-ltx2-ordered") and str(best) in shown.out
    assert plan["lr"] == float(options.finetune_lr) and plan["objective"]["order_loss_mul"] > 0
    assert "was pretrained with" not in caplog.text


def test_no_explainer_of_the_recipe_is_one_line(scripts, write_images):
    """An explainer of the released recipe does not stand in for it, nor does a fresh head."""
    run_json(scripts(run_seg_cls))
    photo = write_images(["photo.jpg"]) / "photo.jpg"
    for result in (
        scripts(run_seg_cls_opt, "--recipe", "ordered"),
        scripts(explain, "--recipe", "ordered", "--input", photo),
    ):
        assert "checkpoints/tiny/predicted-ordered/best.safetensors not found" in result.error
        assert "run_seg_cls.py --recipe ordered" in result.error


def test_another_recipe_is_another_run_and_says_so(scripts, tiny_pair, caplog):
    given = ["--explainer-checkpoint", tiny_pair.explainer, "--run-name", "one"]
    run_json(scripts(run_seg_cls_opt, *given))
    assert "was pretrained with" not in caplog.text
    error = scripts(run_seg_cls_opt, *given, "--recipe", "ordered").error
    assert "recipe was released, now ordered" in error and "mask_loss was bce, now l1" in error
    assert "best.safetensors was pretrained with --recipe released, not with ordered" in caplog.text
