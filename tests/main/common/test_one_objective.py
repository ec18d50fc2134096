"""One checkpoint, one objective: flags, then the recipe, then its training, through every door."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from ltx import config
from ltx.config import Rule
from ltx.main.api import FRESH_HEAD, TRAINED, defaults_of
from ltx.main.explanation import method
from ltx.main.explanation.options import ExplainOptions
from ltx.main.runs.build_models import settled
from ltx.main.seg_classification.ltx_run import finetune_settings
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.losses import Objective

ON_CPU = SimpleNamespace(mean=torch.zeros(1))  # all that is asked of the explainee here


@pytest.fixture
def trained(make_explainer):
    """`trained(**metadata)`: an explainer as a checkpoint with this metadata leaves it."""

    def make(**metadata):
        explainer = make_explainer()
        explainer.metadata = metadata
        return explainer

    return make


def objectives(explainer, monkeypatch, **given) -> list[Objective]:
    """What each door finetunes: the command, the explanation of pictures, Python (which takes no flags)."""
    monkeypatch.setattr(method, "pretrained_explainer", lambda *_: (explainer, "file", explainer.metadata))
    names = {"explainee_model_name": "tiny_vit"}
    command = settled(FinetuneOptions(**names, **given), explainer)
    plan = method.picture_method(ExplainOptions(input=(), **names, **given), ON_CPU, [])
    found = [Objective.from_options(command), plan.how.objective]
    settings = finetune_settings(FinetuneOptions(**names, **given), explainer, None)
    assert settings.lr == plan.how.lr
    if not given.keys() - {"recipe"}:
        defaults = defaults_of(explainer, given.get("recipe"))
        assert defaults.lr == plan.how.lr
        found.append(defaults.objective)
    return found


def test_all_doors_finetune_what_the_checkpoint_was_trained_with(trained, monkeypatch):
    explainer = trained(
        objective={"mask_loss": "l1", "mask_loss_mul": 7.0, "fill": "blur", "is_ce_neg": True}
    )
    wanted = Objective("l1", 7.0, fill="blur", is_ce_neg=True)
    assert objectives(explainer, monkeypatch) == [wanted] * 3


def test_flags_beat_the_recipe_and_the_recipe_the_checkpoint(trained, monkeypatch):
    rules = (Rule(values={"mask_fill": "mean", "smooth_loss_mul": 2.0, "finetune_lr": 1e-3}),)
    monkeypatch.setitem(config.RECIPES, "own", rules)
    for recipe in ({}, {"recipe": "own"}):  # not given, it is that of the checkpoint
        explainer = trained(
            recipe="own", objective={"mask_loss": "l1", "fill": "blur", "smooth_loss_mul": 9.0}
        )
        wanted = Objective("l1", fill="mean", smooth_loss_mul=2.0)
        assert objectives(explainer, monkeypatch, **recipe) == [wanted] * 3
        flags = {"mask_loss": "bce", "smooth_loss_mul": 0.0}
        assert objectives(explainer, monkeypatch, **recipe, **flags) == [Objective(fill="mean")] * 2


def test_a_published_checkpoint_names_no_objective(trained, monkeypatch):
    explainer = trained(published=True)
    assert objectives(explainer, monkeypatch) == [Objective()] * 3
    explainer.name = "vit_small_224"
    assert defaults_of(explainer).objective == Objective(mask_loss_mul=30.0)
    assert (TRAINED.steps, TRAINED.lr, TRAINED.objective) == (25, 5e-5, Objective())


def test_flags_on_an_explainer_that_was_never_trained(make_explainer, monkeypatch):
    explainer = make_explainer()
    monkeypatch.setattr(method, "pretrained_explainer", lambda *_: (explainer, "file", {}))
    options = ExplainOptions(input=(), explainee_model_name="tiny_vit", mask_loss="l1")
    plan = method.picture_method(options, ON_CPU, [])
    assert plan.how.objective == dataclasses.replace(FRESH_HEAD.objective, mask_loss="l1")
    assert (plan.how.lr, plan.how.steps) == (FRESH_HEAD.lr, FRESH_HEAD.steps)
