"""Defaults of `explain`, by the kind of the explainer."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

from ltx.config import RELEASED
from ltx.main.common.recipes import recipe_values, usual_values
from ltx.main.seg_classification.options import LtxOptions
from ltx.models.explainer import Explainer
from ltx.models.free_mask import FreeMask
from ltx.models.losses import Objective


@dataclass(frozen=True)
class Defaults:
    """Settings of `explain`.

    Attributes:
        steps: masks per image.
        lr: learning rate of the finetuning.
        objective: the loss.
        decay: let the rate fall to 0.
        kink_width: see `finetuning.Settings`.
    """

    steps: int
    lr: float
    objective: Objective
    decay: bool = False
    kink_width: float = 0.0


# From pLTX weights: the paper's finetuning. From a backbone with a fresh head: more and larger steps and a
# lighter mask loss (at 50 the mask goes black). From the mask itself: see `models.free_mask`.
_STEPS, _RATE = (
    LtxOptions.n_epochs_to_optimize_stage_b,
    recipe_values(RELEASED, "finetuning", "")["finetune_lr"],
)
TRAINED = Defaults(_STEPS, _RATE, Objective())
FRESH_HEAD = Defaults(50, 5e-4, Objective(mask_loss_mul=10.0))
FRESH = Defaults(25, 1.0, Objective("l1", 2.0, smooth_loss_mul=0.5), decay=True)
RETRY = replace(FRESH, objective=Objective("l1", 0.5, smooth_loss_mul=0.5))


def defaults_of(explainer: Explainer, recipe: str | None = None) -> Defaults:
    """Return `FRESH` for a free mask, `FRESH_HEAD` for a backbone never trained, else the recipe's values.

    What the recipe leaves open is as in the explainer's training, then as in `TRAINED`.

    Args:
        explainer: makes the masks.
        recipe: default: the one that the explainer was pretrained with.

    Raises:
        UserError: no such recipe.
    """
    if not explainer.is_trained:
        return FRESH if isinstance(explainer, FreeMask) else FRESH_HEAD

    def kind_of(_: str) -> str:
        return "tokens" if explainer.has_tokens else "feature_map"

    values = usual_values("finetuning", recipe, explainer.metadata, explainer.name, kind_of=kind_of)
    return Defaults(
        TRAINED.steps,
        values["finetune_lr"],
        Objective.from_options(SimpleNamespace(**values)),
        values["finetune_decay"],
        values["kink_width"],
    )


def default_steps(explainer: Explainer, has_target: bool, recipe: str | None = None) -> int:
    """Masks per image where nothing else is said.

    None from a trained explainer, whose forward pass answers; but unless it is class-conditional that pass
    knows nothing of a target, so with one the steps of `TRAINED`. From one that was never trained, those of
    `FRESH` or `FRESH_HEAD`.
    """
    answers = explainer.class_conditional or not has_target
    return 0 if explainer.is_trained and answers else defaults_of(explainer, recipe).steps
