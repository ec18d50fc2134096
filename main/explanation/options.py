"""Options of `explain.py`."""
from dataclasses import MISSING, dataclass
from pathlib import Path

from ltx.config import ACTIVATIONS
from ltx.main.common.options import (
    BadImageOptions,
    ExplainerOptions,
    ModelOptions,
    PlaceOptions,
    RunOptions,
    option,
)


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(RunOptions, BadImageOptions, PlaceOptions, ExplainerOptions, ModelOptions):
    """`main/explain.py`: pictures and a model to maps, overlays and masked pictures."""

    input: tuple[Path, ...] = option(
        MISSING, "pictures, or folders of them", metavar="PATH", group="images", free=True
    )
    explainee_model_name: str = option(
        "efficientnet_lite0", "alias or timm name of the explainee", group="models"
    )
    train_model_by_target_gt_class: bool = option(
        False, "start from the explainer that was trained on true classes (target)", group="models"
    )
    activation_function: str | None = option(
        None,
        "from the head's output to the mask (default: as pretrained; softmax without a pLTX explainer)",
        choices=ACTIVATIONS,
        group="models",
    )
    is_ce_neg: bool | None = option(
        None,
        "subtract the loss on the inverse mask, and halve (default: as pretrained)",
        group="objective",
    )
    target_class: tuple[str, ...] | None = option(
        None,
        "classes to explain: index, WordNet id or name; several are contrasted on one sheet "
        "(default: the top class of each picture)",
        group="images",
        metavar="CLASS",
        free=True,
    )
    class_names: Path | None = option(
        None, "text file with the name of each class, one a line", group="images", metavar="FILE", free=True
    )
    steps: int | None = option(
        None,
        "masks per picture and class, LTX; 0: pLTX, one forward pass, which depends on no class unless the "
        "explainer is class-conditional (default: 0; 25 with --target-class where it is not; 50 where there "
        "is no pLTX explainer)",
        group="finetuning",
        metavar="N",
        free=True,
    )
    batch_size: int | str = option(
        "auto", "pictures and classes explained side by side at most; auto: what fits the memory",
        metavar="N|auto",
        group="finetuning", free=True,
    )  # fmt: skip
    show_step: str = option(
        "last",
        "step that is shown: the last, the one with the lowest loss, or that with the lowest POS (only where "
        "the class is the top one; takes a few times longer)",
        choices=("last", "best_loss", "best_pos"),
        group="finetuning",
        free=True,
    )
    finetune_lr: float | None = option(
        None,
        "rate of the steps (default: 5e-5, 5e-4 without a pLTX explainer)",
        group="finetuning",
        free=True,
    )
