"""The method of `explain.py`."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ltx.config import RELEASED, UserError
from ltx.datasets.classes import find_class, names_of_classes
from ltx.main.api import TRAINED, Defaults, default_steps, defaults_of
from ltx.main.common.memory import AUTO, SideBySide, measure_slot
from ltx.main.common.recipes import filled
from ltx.main.explanation.options import ExplainOptions
from ltx.main.interface.explain import explain_as
from ltx.main.runs.build_models import explainer_path, new_explainer, pretrained_explainer, settled
from ltx.main.runs.method import Asked, Batch, Maps, Method
from ltx.models.checkpoints import weights_sha256
from ltx.models.explainee import Explainee, class_scores
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import NoExplainerError
from ltx.models.free_mask import MASK, FreeMask
from ltx.models.losses import Objective

log = logging.getLogger(__name__)

_TOP = 5
PREFERRED = "ordered"  # the recipe of explanations without `--recipe`


@dataclass(frozen=True)
class PictureMethod:
    """Explainer and settings of a run of `explain.py`.

    Attributes:
        explainer: makes the masks.
        source: where its weights come from, in words.
        targets: classes to explain in every picture; empty for the top class of each.
        how: steps per picture and class, 0 for one forward pass; their rate and loss.
        shown: variant that is shown.
        batch_size: pictures and classes side by side, or `auto`.
    """

    explainer: Explainer
    source: str
    targets: tuple[int, ...]
    how: Defaults
    shown: str
    batch_size: int | str

    @property
    def name(self) -> str:
        """One word for the way the masks are made."""
        return f"ltx{self.how.steps}" if self.how.steps else "pltx"

    def ask(self, data: dict[str, Any], logits: Tensor, _: Explainee) -> Asked:
        """The targets, else the top class of each picture."""
        n, each = len(logits), max(1, len(self.targets))
        classes = torch.tensor(self.targets * n, device=logits.device) if self.targets else logits.argmax(1)
        return Asked(torch.arange(n).repeat_interleave(each), classes, classes)

    def of(self, explainee: Explainee) -> Method:
        """The method of a mask job, for an explainee on its device."""
        how, is_scored = self.how, self.shown == "best_pos"
        memory = measure_slot(self.explainer, explainee, how.objective, is_scored, how.kink_width)
        if not self.how.steps:  # one forward pass for all, with the explainer's own weights
            memory = dataclasses.replace(memory, weights=0)
        side = SideBySide(self.batch_size, memory, explainee.mean.device, quiet=not self.how.steps)
        sha256 = weights_sha256(self.explainer)
        return Method(
            self.name,
            lambda batch: side.run(lambda n: self.maps(batch, explainee, n)),
            {"explainer": sha256, "plan": self._plan()},
            {"explainer": {"name": self.explainer.name, "checkpoint": self.source, "sha256": sha256}},
            at_once=max(1, side.n // max(1, len(self.targets))),
        )

    def _plan(self) -> dict[str, Any]:
        """Settings that tell runs apart, without those that former runs did not know."""
        how = dataclasses.asdict(self.how)
        plan = {name: value for name, value in how.items() if value or name == "steps"}
        return plan | {"targets": self.targets, "shown": self.shown}

    def maps(self, batch: Batch, explainee: Explainee, batch_size: int) -> Maps:
        """Masks and scores of a batch, `batch_size` rows side by side."""
        made = explain_as(
            self.explainer, explainee, batch.images, batch.classes, self.how, self.shown, batch_size
        )
        probability = class_scores(batch.logits, explainee.multi_label)
        top = probability.topk(min(_TOP, probability.shape[1]))
        figures = made.scores | made.figures | {"top_class": top.indices, "top_probability": top.values}
        return Maps(made.variants, {}, figures)


def class_names(options: ExplainOptions, explainee: Explainee) -> list[str]:
    """Name of each class: from `--class-names`, else the explainee's own, else those of its data set."""
    own = list(explainee.labels or ()) if options.class_names is None else []
    return own or names_of_classes(explainee.name, explainee.num_classes, options.class_names)


def picture_method(options: ExplainOptions, explainee: Explainee, names: list[str]) -> PictureMethod:
    """Resolve classes, explainer and defaults.

    Args:
        options: what is asked for.
        explainee: what is explained.
        names: name of each class.

    Raises:
        UserError: no such class, or an explainer that does not fit.
    """
    if options.steps is not None and options.steps < 0:
        raise UserError(f"--steps {options.steps}: wanted 0 or more")
    targets = tuple(dict.fromkeys(find_class(text, names) for text in options.target_class or ()))
    options = _preferred(options)
    explainer, source = _explainer(options, explainee)
    explainer.to(explainee.mean.device)
    if not explainer.is_trained:
        usual = defaults_of(explainer)
        values = {"finetune_lr": usual.lr, "finetune_decay": usual.decay, "kink_width": usual.kink_width}
        options = filled(options, usual.objective.as_options() | values)
    options = settled(options, explainer)
    if options.batch_size != AUTO and int(options.batch_size) < 1:
        raise UserError(f"--batch-size {options.batch_size}: must be at least 1")
    steps = options.steps
    if steps is None:
        steps = _usual_steps(explainer, bool(targets), options.recipe)
    if steps == 0 and targets and not explainer.class_conditional:
        log.warning("--steps 0: one forward pass depends on no class; the mask is the same for every class")
    loss, rate = Objective.from_options(options), options.finetune_lr
    how = Defaults(steps, rate, loss, options.finetune_decay, options.kink_width)
    shown = options.show_step if steps else "pltx"
    return PictureMethod(explainer, source, targets, how, shown, options.batch_size)


def _preferred(options: ExplainOptions) -> ExplainOptions:
    """The options with the recipe `PREFERRED`, where none is given and the pair has an explainer of it."""
    if options.recipe is not None or options.explainer_checkpoint is not None:
        return options
    preferred = dataclasses.replace(options, recipe=PREFERRED)
    try:
        explainer_path(preferred)
    except NoExplainerError:
        return options
    return preferred


def _usual_steps(explainer: Explainer, has_target: bool, recipe: str | None) -> int:
    """Steps where none are given: under `PREFERRED` they earn their seconds."""
    if recipe == PREFERRED and explainer.is_trained and not explainer.class_conditional:
        return TRAINED.steps
    return default_steps(explainer, has_target, recipe)


def _explainer(options: ExplainOptions, explainee: Explainee) -> tuple[Explainer, str]:
    """The pair's pLTX explainer, else a free mask; and where its weights come from, in words.

    A backbone with a fresh head where it is named, asked about classes, or wanted by the released recipe.
    """
    if options.explainer_model_name == MASK:
        return FreeMask(explainee), "none, the mask itself is trained"
    try:
        explainer, path, _ = pretrained_explainer(options, explainee)
        return explainer, str(path)
    except NoExplainerError as error:
        if options.explainer_checkpoint is not None or error.other_recipe is not None:
            raise
    if options.explainer_model_name or options.class_conditional or options.recipe == RELEASED:
        fresh = filled(options, {"activation_function": "softmax"})
        explainer = new_explainer(fresh, explainee, options.mask_scale or 1)
        return explainer, "none found, so its backbone with a fresh head"
    return FreeMask(explainee), "none found, so the mask itself is trained"
