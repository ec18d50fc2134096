"""Options of `explain.py`."""

from dataclasses import MISSING
from pathlib import Path
from typing import ClassVar

from ltx.main.common import options as common
from ltx.main.common.options import option, options
from ltx.main.seg_classification.options import RateOptions

OUTPUTS = ("overlay", "heatmap", "masked", "mask", "box", "cutout", "npy", "json")
DEFAULT_OUTPUTS = OUTPUTS[:3]


@options("finetuning", free=True)
class ExplainOptions(
    RateOptions,
    common.DeviceOptions,
    common.BadImageOptions,
    common.PlaceOptions,
    common.ConditionOptions,
    common.ExplainerOptions,
    common.ModelOptions,
):
    """`main/explain.py`: pictures and a model to maps, overlays and masked pictures."""

    ignored_flags: ClassVar[tuple[str, ...]] = ("--num-workers",)

    input: tuple[Path, ...] = option(MISSING, "pictures, or folders of them", metavar="PATH", group="images")
    recursive: bool = option(False, "take the pictures of subfolders too", group="images")
    explainee_model_name: str = option(
        "efficientnet_lite0", "alias or timm name of the explainee", group="models", free=False
    )
    train_model_by_target_gt_class: bool = option(
        False, "explainer trained on true classes", group="models", free=False
    )
    target_class: tuple[str, ...] | None = option(
        None,
        "classes to explain: index, WordNet id or name; several are contrasted on one sheet "
        "(default: the top class of each picture)",
        group="images",
        metavar="CLASS",
    )
    class_names: Path | None = option(None, "text file of the class names, one per line", group="images")
    steps: int | None = option(
        None,
        "LTX steps per picture and class; 0: pLTX, one forward pass, which depends on the class only if the "
        "explainer is class-conditional (default: 25; 0 if it is, and with --recipe released without "
        "--target-class)",
        metavar="N",
    )
    batch_size: int | str | None = option(
        None,
        "pictures and classes explained side by side at most, or auto: as many as fit in memory (default: "
        "auto; ordered, CNNs: 4)",
        metavar="N|auto",
    )
    show_step: str = option(
        "last",
        "step to show: the last, the one with the lowest loss, or the one with the lowest POS (for the top "
        "class only; a few times slower)",
        choices=("last", "best_loss", "best_pos"),
    )
    finetune_lr: float | None = option(None, "learning rate (default: as for masks; 1 for a free mask)")
    outputs: str = option(
        ",".join(DEFAULT_OUTPUTS),
        f"files of each picture beside its sheet: {', '.join(OUTPUTS)}",
        metavar="NAME[,NAME...]",
        group="pictures",
    )
    colormap: str = option("plasma", "colour map of matplotlib", metavar="NAME", group="pictures")
    alpha: float = option(0.7, "opacity of the overlay where the mask is 1, from 0 to 1", group="pictures")
    max_size: int | None = option(
        None,
        "longest side of the files in pixels (default: the picture's own)",
        metavar="N",
        group="pictures",
    )
