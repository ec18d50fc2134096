"""Settings of one run of `explain.py`."""

import logging
from dataclasses import dataclass

from ltx.config import RELEASED, UserError
from ltx.datasets.classes import find_class
from ltx.main.api import FRESH, default_steps
from ltx.main.common.memory import AUTO
from ltx.main.common.recipes import filled
from ltx.main.explanation.options import ExplainOptions
from ltx.main.runs.build_models import new_explainer, pretrained_explainer, settled
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import NoExplainerError
from ltx.models.losses import Objective

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How pictures are explained.

    Attributes:
        explainer: makes the masks.
        source: where its weights come from, in words.
        targets: classes to explain in every picture; empty for the top class of each.
        steps: masks per picture and class, 0 for one forward pass.
        lr: rate of the steps.
        objective: loss of the steps.
        shown: variant that is shown.
        batch_size: pictures and classes side by side, or `auto`.
    """

    explainer: Explainer
    source: str
    targets: tuple[int, ...]
    steps: int
    lr: float
    objective: Objective
    shown: str
    batch_size: int | str = 16

    @property
    def method(self) -> str:
        """How the masks are made, in a word."""
        return f"ltx{self.steps}" if self.steps else "pltx"


def make_plan(options: ExplainOptions, explainee: Explainee, names: list[str]) -> Plan:
    """Resolves classes, explainer and defaults.

    Raises:
        UserError: no such class, or an explainer that does not fit.
    """
    if options.steps is not None and options.steps < 0:
        raise UserError(f"--steps {options.steps}: wanted 0 or more")
    targets = tuple(dict.fromkeys(find_class(text, names) for text in options.target_class or ()))
    explainer, source = _explainer(options, explainee)
    if not explainer.is_trained:
        options = filled(options, FRESH.objective.as_options() | {"finetune_lr": FRESH.lr})
    options = settled(options, explainer)
    if options.batch_size != AUTO and options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size}: must be at least 1")
    steps = options.steps
    if steps is None:
        steps = default_steps(explainer, bool(targets), options.recipe)
    if steps == 0 and targets and not explainer.class_conditional:
        log.warning("--steps 0: one forward pass depends on no class; the mask is the same for every class")
    shown, objective = options.show_step if steps else "pltx", Objective.from_options(options)
    return Plan(explainer, source, targets, steps, options.finetune_lr, objective, shown, options.batch_size)


def _explainer(options: ExplainOptions, explainee: Explainee) -> tuple[Explainer, str]:
    """The pair's pLTX explainer, else its backbone with a fresh head; and where its weights come from."""
    try:
        explainer, path, _ = pretrained_explainer(options, explainee)
        return explainer, str(path)
    except NoExplainerError as error:
        is_chosen = options.explainer_checkpoint is not None or options.recipe not in (None, RELEASED)
        if is_chosen or error.other_recipe is not None:
            raise
    fresh = filled(options, {"activation_function": "softmax"})
    explainer = new_explainer(fresh, explainee, options.mask_scale or 1)
    return explainer, "none found, so its backbone with a fresh head"
