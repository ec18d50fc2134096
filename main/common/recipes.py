"""Recipes: values for the options that no flag sets, from the table `config.RECIPES`.

Of several values for an option the first counts: the flag's, the recipe's, that of the checkpoint's training,
the default.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ltx import config
from ltx.config import ALIASES, PUBLISHED, RELEASED, UserError
from ltx.main.common.options import ObjectiveOptions

# Checkpoint metadata that names the recipe of its pretraining; files without it are of `released`.
RECIPE = "recipe"
_OBJECTIVE = {field.name for field in dataclasses.fields(ObjectiveOptions)}
_KINDS = ("tokens", "feature_map")


def recipe_values(
    recipe: str,
    stage: str,
    explainer: str,
    explainee: str | None = None,
    kind_of: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """Return what a recipe sets, by option.

    Args:
        recipe: its name.
        stage: `pretraining` or `finetuning`.
        explainer: alias or timm name.
        explainee: likewise; None if it is not known.
        kind_of: called with the name of an explainer that is no alias, if a rule depends on its kind; returns
            `tokens` or `feature_map`.

    Raises:
        UserError: no such recipe, or what `kind_of` raises.
    """
    if recipe not in config.RECIPES:
        raise UserError(f"there is no recipe '{recipe}'; choose from {', '.join(config.RECIPES)}")
    names = (RELEASED,) if recipe == RELEASED else (RELEASED, recipe)
    rules = [rule for name in names for rule in config.RECIPES[name] if rule.stage in (None, stage)]
    alias, holds = ALIASES.get(explainer), {None, explainer}
    if alias is not None and alias.published and explainer == explainee:
        holds.add(PUBLISHED)
    if any(rule.explainer in _KINDS for rule in rules):
        holds.add(alias.kind if alias is not None else kind_of(explainer) if kind_of else None)
    return {name: value for rule in rules if rule.explainer in holds for name, value in rule.values.items()}


def trained_with(metadata: Mapping[str, Any], explainer: str, kind_of=None) -> dict[str, Any]:
    """Return the objective that a checkpoint was pretrained with, by option.

    The authors' files name none; theirs is that of the recipe.
    """
    if "objective" in metadata:
        return {"mask_fill" if name == "fill" else name: v for name, v in metadata["objective"].items()}
    values = recipe_values(metadata.get(RECIPE, RELEASED), "pretraining", explainer, explainer, kind_of)
    return {name: value for name, value in values.items() if name in _OBJECTIVE}


def usual_values(
    stage: str,
    recipe: str | None,
    metadata: Mapping[str, Any],
    explainer: str,
    explainee: str | None = None,
    kind_of: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """Return the values of options that no flag sets: the recipe's, else those of the checkpoint's training.

    Args:
        stage: `pretraining` or `finetuning`.
        recipe: its name; None for that of the checkpoint's training.
        metadata: of the explainer's checkpoint; empty without one.
        explainer: alias or timm name.
        explainee: likewise; None if it is not known.
        kind_of: see `recipe_values`.

    Raises:
        UserError: see `recipe_values`.
    """
    recipe = recipe or metadata.get(RECIPE, RELEASED)
    trained = trained_with(metadata, explainer, kind_of) if stage == "finetuning" else {}
    values = recipe_values(recipe, stage, explainer, explainee, kind_of)
    return trained | values | {"recipe": recipe}


def filled(options, values: Mapping[str, Any]):
    """Return the options with those that are None set to the value of their name, if there is one."""
    names = {field.name for field in dataclasses.fields(options)} & values.keys()
    return dataclasses.replace(
        options, **{name: values[name] for name in names if getattr(options, name) is None}
    )
