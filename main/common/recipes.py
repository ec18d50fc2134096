"""Recipes: from what a user asks for to all options of a script, by the table `config.RECIPES`."""

import dataclasses
import types
import typing
from typing import Any

from ltx import config
from ltx.config import RELEASED, UserError


def with_recipe(options_class: type, given: dict[str, Any]) -> Any:
    """An instance of a `config` dataclass: what is given, else what its recipe says, else its defaults.

    Args:
        options_class: the dataclass; one without a recipe, or that trains nothing, is simply made.
        given: values by field.

    Raises:
        UserError: no such recipe, or no such explainer where the recipe depends on it.
    """
    stage, recipe = getattr(options_class, "stage", None), given.get("recipe", RELEASED)
    if stage is None:
        return options_class(**given)
    explainee = given.get("explainee_model_name", options_class.explainee_model_name)
    hints = typing.get_type_hints(options_class)
    fields = {field.name for field in dataclasses.fields(options_class)}
    values = recipe_values(recipe, stage, given.get("explainer_model_name") or explainee)
    defaults = {name: _as(hints[name], value) for name, value in values.items() if name in fields}
    return options_class(**defaults | given)


def recipe_values(recipe: str, stage: str, explainer_name: str) -> dict[str, Any]:
    """What a recipe sets for an explainer, by option.

    Args:
        recipe: its name.
        stage: `pretraining` or `finetuning`.
        explainer_name: alias or timm name.

    Raises:
        UserError: no such recipe, or no such explainer where the recipe depends on its kind.
    """
    if recipe not in config.RECIPES:
        raise UserError(f"there is no recipe '{recipe}'; there are {', '.join(config.RECIPES)}")
    rules = [rule for rule in config.RECIPES[recipe] if rule.stage in (None, stage)]
    names = {None, explainer_name}
    if any(rule.explainer in ("tokens", "feature_map") for rule in rules):
        names.add(_kind_of(explainer_name))  # once: it builds the network
    values = {}
    for rule in rules:
        if rule.explainer in names:
            values |= rule.values
    return values


def _kind_of(explainer_name: str) -> str:
    import torch

    from ltx.models.explainer import Explainer

    with torch.device("meta"):
        return "tokens" if Explainer.untrained(explainer_name).has_tokens else "feature_map"


def _as(hint: Any, value: Any) -> Any:
    """The value as a field of this type takes it: a rate is text for LTX, where it may be a word too."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return value if type(value) in kinds else kinds[0](value)
