"""Recipes: the table's values, what beats them, and runs whose explainer and folder they choose."""

import dataclasses
import json
import typing

import pytest

from ltx import config
from ltx.config import Rule, UserError
from ltx.main import demo, explain
from ltx.main.class_eval.options import ClassEvalOptions
from ltx.main.common import cli
from ltx.main.common.recipes import recipe_values, with_recipe
from ltx.main.explanation.options import ExplainOptions
from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt
from ltx.main.seg_classification.options import FinetuneOptions, PretrainOptions
from ltx.main.segmentation_eval.options import SegStageAOptions, SegStageBOptions
from ltx.models.checkpoints import load_metadata

pytestmark = pytest.mark.usefixtures("no_drawing")
FINETUNING = [FinetuneOptions, SegStageAOptions, SegStageBOptions]
CLASSES = [PretrainOptions, *FINETUNING, ClassEvalOptions]


@pytest.mark.parametrize("options_class", CLASSES)
def test_released_are_the_defaults(options_class):
    assert cli.parse(options_class, []) == cli.parse(options_class, ["--recipe", "released"])
    assert cli.parse(options_class, []) == options_class() == with_recipe(options_class, {})


@pytest.mark.parametrize("options_class", [*CLASSES, ExplainOptions])
def test_ordered(options_class):
    needed = ["--input", "x"] if options_class is ExplainOptions else []
    options = cli.parse(options_class, [*needed, "--recipe", "ordered"])
    assert options.recipe == "ordered"
    for name, value in recipe_values("ordered", options_class.stage, options.explainee_model_name).items():
        if hasattr(options, name):
            found = getattr(options, name)
            assert found == (type(found)(value) if isinstance(value, str) else value), name
    assert options.mask_loss == "l1" and options.order_loss_mul > 0
    if hasattr(options, "finetune_lr"):
        kind = float if options_class in (ExplainOptions, ClassEvalOptions) else str
        assert type(options.finetune_lr) is kind and float(options.finetune_lr) != 5e-5


def test_what_is_given_beats_the_recipe_even_where_it_is_the_usual_default():
    given = ["--mask-loss", "bce", "--order-loss-mul", "0", "--finetune-lr", "5e-5"]
    options = cli.parse(FinetuneOptions, ["--recipe", "ordered", *given])
    assert (options.mask_loss, options.order_loss_mul, options.finetune_lr) == ("bce", 0.0, "5e-5")
    assert options.mask_loss_mul == cli.parse(FinetuneOptions, ["--recipe", "ordered"]).mask_loss_mul


def test_unknown_recipes_are_refused():
    with pytest.raises(UserError, match=r"--recipe: invalid choice: 'best'.*released.*ordered"):
        cli.parse(PretrainOptions, ["--recipe", "best"])
    with pytest.raises(UserError, match="there is no recipe 'best'; there are released, ordered"):
        with_recipe(PretrainOptions, {"recipe": "best"})


def test_the_table_names_options_and_values_that_there_are():
    """Every value is of its option's type and one of its choices, in a script of the rule's stage."""
    classes = {"pretraining": [PretrainOptions], "finetuning": FINETUNING}
    kinds = {None, "tokens", "feature_map", *config.ALIASES}
    for rule in (rule for rules in config.RECIPES.values() for rule in rules):
        assert rule.explainer in kinds and rule.stage in (None, *classes)
        for options_class in classes[rule.stage] if rule.stage else [PretrainOptions, *FINETUNING]:
            fields = {field.name: field for field in dataclasses.fields(options_class)}
            hints = typing.get_type_hints(options_class)
            for name, value in rule.values.items():
                assert name in fields and name != "recipe", (name, options_class)
                assert isinstance(value, hints[name]), (name, value)
                assert value in (fields[name].metadata["choices"] or (value,)), (name, value)


@pytest.fixture
def table(monkeypatch):
    """A recipe `own` of rules for stages, kinds and names."""
    rules = (
        Rule(values={"mask_loss_mul": 1.0, "finetune_lr": "1e-3", "lr": 0.5}, stage=None),
        Rule(values={"finetune_lr": "2e-3"}, explainer="feature_map"),
        Rule(values={"mask_loss_mul": 7.0}, explainer="tokens"),
        Rule(values={"finetune_lr": "3e-3"}, stage="finetuning", explainer="densenet"),
        Rule(values={"lr": 0.25, "n_epochs": 4}, stage="pretraining"),
    )
    monkeypatch.setitem(config.RECIPES, "own", rules)


@pytest.mark.parametrize(
    "explainer, rate, weight",
    [("vit_digits", "1e-3", 7.0), ("efficientnet_lite0", "2e-3", 1.0), ("densenet", "3e-3", 1.0)],
)
def test_rules_hold_for_kinds_and_names_and_later_ones_count(table, explainer, rate, weight):
    for given in (
        {"explainee_model_name": explainer},
        {"explainer_model_name": explainer, "explainee_model_name": "resnet"},
    ):
        options = with_recipe(FinetuneOptions, {"recipe": "own"} | given)
        assert (options.finetune_lr, options.mask_loss_mul, options.lr) == (rate, weight, 0.5)
        options = with_recipe(PretrainOptions, {"recipe": "own"} | given)
        assert (options.lr, options.n_epochs, options.mask_loss_mul) == (0.25, 4, weight)


def test_a_rule_for_a_kind_needs_an_explainer_that_there_is(table):
    with pytest.raises(UserError, match="unknown model 'vit_digit'"):
        with_recipe(FinetuneOptions, {"recipe": "own", "explainee_model_name": "vit_digit"})


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
    options = cli.parse(FinetuneOptions, ["--recipe", "ordered"])
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


def test_the_demo_hands_its_recipe_on(monkeypatch, run_script, tiny_pair, places):
    seen = {}
    monkeypatch.setattr("ltx.main.demo_run.load_explainee", lambda options: _Nothing())
    monkeypatch.setattr("ltx.main.demo_run.open_image_set", lambda *_: [])
    monkeypatch.setattr(
        "ltx.main.demo_run.Demo._draw", lambda self: {"train": None, "val": None, "explained": None}
    )
    monkeypatch.setattr(
        "ltx.main.demo_run.pretrain", lambda options, *_: (seen.update(pretrain=options), (0, 0))[1]
    )

    def run_ltx(options, explainee, images, folder, device):
        seen.update(ltx=options, folder=folder)
        raise UserError("enough")

    monkeypatch.setattr("ltx.main.demo_run.run_ltx", run_ltx)
    assert run_script(demo, "--recipe", "ordered", "--n-epochs", 9).error == "error: enough"
    assert seen["folder"] == places / "data" / "results" / "demo-vit_digits-ordered" / "ltx"
    assert seen["pretrain"].n_epochs == 9 and seen["pretrain"].mask_loss == seen["ltx"].mask_loss == "l1"
    assert seen["ltx"].finetune_lr == cli.parse(FinetuneOptions, ["--recipe", "ordered"]).finetune_lr


class _Nothing:
    def to(self, device):
        return self
