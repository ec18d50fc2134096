"""Settings of one run of `explain.py`."""

import dataclasses
import logging
from dataclasses import dataclass

from ltx.config import RELEASED, UserError
from ltx.datasets.classes import find_class
from ltx.main.api import default_steps, defaults_of
from ltx.main.common.memory import AUTO
from ltx.main.explanation.options import ExplainOptions
from ltx.main.runs.build_models import new_explainer, objective, pretrained_explainer
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
    """

    explainer: Explainer
    source: str
    targets: tuple[int, ...]
    steps: int
    lr: float
    objective: Objective
    shown: str

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
    if options.batch_size != AUTO and options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size}: wanted at least 1")
    targets = tuple(dict.fromkeys(find_class(text, names) for text in options.target_class or ()))
    explainer, source = _explainer(options, explainee)
    defaults = defaults_of(explainer, options.recipe)
    steps = options.steps
    if steps is None:
        steps = default_steps(explainer, bool(targets), options.recipe)
    if steps == 0 and targets and not explainer.class_conditional:
        log.warning("--steps 0: one forward pass depends on no class; the mask is the same for every class")
    lr = defaults.lr if options.finetune_lr is None else options.finetune_lr
    shown = options.show_step if steps else "pltx"
    return Plan(explainer, source, targets, steps, lr, _objective(options, defaults.objective), shown)


def _explainer(options: ExplainOptions, explainee: Explainee) -> tuple[Explainer, str]:
    """The pair's pLTX explainer, else its backbone with a fresh head; and where its weights come from."""
    activation = options.activation_function
    try:
        trained = dataclasses.replace(options, activation_function=activation or "sigmoid")
        explainer, path, _ = pretrained_explainer(trained, explainee)
        return explainer, str(path)
    except NoExplainerError as error:
        is_chosen = options.explainer_checkpoint is not None or options.recipe != RELEASED
        if is_chosen or error.other_recipe is not None:
            raise
    fresh = dataclasses.replace(options, activation_function=activation or "softmax")
    explainer = new_explainer(fresh, explainee, options.mask_scale or 1)
    return explainer, "none found, so its backbone with a fresh head"


def _objective(options: ExplainOptions, default: Objective) -> Objective:
    """The objective of the flags; what they leave open is as the explainer's default."""
    weight, inverse = options.mask_loss_mul, options.is_ce_neg
    resolved = dataclasses.replace(
        options,
        mask_loss_mul=default.mask_loss_mul if weight is None else weight,
        is_ce_neg=default.is_ce_neg if inverse is None else inverse,
    )
    return objective(resolved)
