"""Rows of a comparison: methods with their labels."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ltx.config import RELEASED, UserError
from ltx.main.report_page.collect import Run
from ltx.main.report_page.measures import Measure
from ltx.main.runs.mask_job import RANDOMISED

# What an LTX run stores, in the order of its making.
_LTX_ORDER = ("pltx", "last", "best_loss", "best_pos", "best_neg")
_STEPS = {"last": "last", "best_loss": "lowest loss", "best_pos": "lowest POS", "best_neg": "highest NEG"}
_RECIPES = {"ordered": "ours, ", RELEASED: "released, "}
_TITLES = {
    "pltx": "pLTX", "oracle": "true object mask", "random": "random map", "smoothgrad": "SmoothGrad",
    "centre_gaussian": "Gaussian in the middle", "grad_cam": "Grad-CAM", "grad_cam_plus_plus": "Grad-CAM++",
    "layer_cam": "LayerCAM", "ablation_cam": "Ablation-CAM", "full_grad": "FullGrad", "rise": "RISE",
    "legrad": "LeGrad", "input_gradient": "input gradient", "integrated_gradients": "integrated gradients",
    "raw_attention": "raw attention", "attention_rollout": "attention rollout",
    "generic_attention": "generic attention", "transformer_attribution": "transformer attribution",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One method of a table.

    Attributes:
        label: unique within the comparison.
        variant: name in the mask files.
        run: the run that made the maps.
        positions: (N,) of each image of the comparison in the run.
        candidates: number of maps that it was chosen from.
        measures: by metric.
        folder: results folder, for the sheets of segmentation.
    """

    label: str
    variant: str
    run: Run
    positions: np.ndarray
    candidates: int
    measures: dict[str, Measure]
    folder: Path

    @property
    def title(self) -> str:
        """The row's name for people; a run's own name stays as the command line gave it."""
        variant = self.variant.removesuffix(RANDOMISED)
        if variant in _STEPS:
            options = self.run.record.options
            n = options.get("n_epochs_to_optimize_stage_b")
            recipe = _RECIPES.get(str(options.get("recipe")), "")
            name = f"LTX ({recipe}{_STEPS[variant]} of {n} steps)" if n else f"LTX ({_STEPS[variant]})"
        else:
            name = _TITLES.get(variant, variant)
        titles = {self.variant: name, f"{self.run.name}/{self.variant}": f"{self.run.name}: {name}"}
        return titles.get(self.label, self.run.name) + (", random weights" if self.randomised else "")

    @property
    def randomised(self) -> bool:
        """True for a model with random weights."""
        return self.variant.endswith(RANDOMISED)

    @property
    def oracle(self) -> bool:
        """True for the true object masks: a bound, not a method."""
        return self.variant == "oracle"


@dataclass(frozen=True)
class Comparison:
    """Rows that can stand in one table.

    Attributes:
        protocol: `perturbation` or `segmentation`.
        fill: what replaces removed pixels; None for segmentation.
        scored_class: `target` or `predicted`.
        images: names of the N images.
        left_out: images that some run has and the comparison has not.
        classes: (N,) class scored, -1 for segmentation.
        better: `higher_is_better` by metric, in the order of the columns.
        rows: the methods.
    """

    protocol: str
    fill: str | None
    scored_class: str
    images: list[str]
    left_out: int
    classes: np.ndarray
    better: dict[str, bool | None]
    rows: list[Row]

    def row(self, label: str) -> Row:
        """Return the row of a label."""
        return next(row for row in self.rows if row.label == label)


def in_order(variants: Sequence[str]) -> list[str]:
    """Return LTX's variants in the order of their making, then others as they are stored."""

    def place(variant: str) -> int:
        name = variant.removesuffix(RANDOMISED)
        return _LTX_ORDER.index(name) if name in _LTX_ORDER else len(_LTX_ORDER)

    return sorted(variants, key=place)


def labelled(rows: list[Row]) -> list[Row]:
    """Return rows with unique labels: the variant's name, after its run's if one was given or is needed.

    Raises:
        UserError: two rows still have the same label.
    """
    per_run, variants = defaultdict(int), defaultdict(int)
    for row in rows:
        per_run[row.run.name] += 1
        variants[row.variant] += 1

    def label(row: Row) -> str:
        if row.run.renamed:
            alone = per_run[row.run.name] == 1
            return (
                row.run.name + (RANDOMISED if row.randomised else "")
                if alone
                else f"{row.run.name}/{row.variant}"
            )
        return row.variant if variants[row.variant] == 1 else f"{row.run.name}/{row.variant}"

    found = [replace(row, label=label(row)) for row in rows]
    for i, row in enumerate(found):
        if row.label in [other.label for other in found[:i]]:
            raise UserError(f"two rows are called {row.label}; name their runs with NAME=PATH")
    return found


def reference_of(comparison: Comparison, wanted: str | None) -> Row:
    """Return the row that others are compared with: `wanted`, else `last`, else `pltx`, else the first.

    Raises:
        UserError: there is no such row, or several.
    """
    rows = [row for row in comparison.rows if not row.randomised]
    if not rows:
        raise UserError("all maps are of models with random weights; give the runs of the true model too")
    if wanted is None:
        for name in ("last", "pltx"):
            for row in rows:
                if row.variant == name:
                    return row
        return rows[0]
    return find_row(rows, wanted, "--reference")


def find_row(rows: Sequence[Row], wanted: str, flag: str) -> Row:
    """Return the row of a label, or of a variant's name that only one row has.

    Raises:
        UserError: there is no such row, or several.
    """
    found = [row for row in rows if row.label == wanted] or [row for row in rows if row.variant == wanted]
    if len(found) == 1:
        return found[0]
    labels = ", ".join(row.label for row in (found or rows))
    raise UserError(f"{flag} {wanted}: {'several rows' if found else 'no such row'}; there are {labels}")


def true_row(comparison: Comparison, row: Row) -> Row | None:
    """Return the true model's row of a randomised one: by its label, else by its variant."""
    label, variant = row.label.removesuffix(RANDOMISED), row.variant.removesuffix(RANDOMISED)
    by_label = [other for other in comparison.rows if other.label == label]
    found = by_label or [other for other in comparison.rows if other.variant == variant]
    return found[0] if found else None
