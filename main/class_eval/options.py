"""Options of `run_class_eval.py`."""

from pathlib import Path
from typing import ClassVar

from ltx.main.common import options as common
from ltx.main.common.options import option, options
from ltx.main.seg_classification.options import RateOptions


@options("finetuning")
class ClassEvalOptions(
    RateOptions,
    common.RunOptions,
    common.PlaceOptions,
    common.SegmentationSetOptions,
    common.ExplainerOptions,
    common.TargetOptions,
    common.ModelOptions,
):
    """`run_class_eval.py`: maps of several classes of the same image."""

    ignored_flags: ClassVar[tuple[str, ...]] = ("--score-class", "--class-conditional")

    class_conditional: ClassVar[bool] = True
    score_class: ClassVar[str] = "explained"

    plain_checkpoint: Path | None = option(
        None, "explainer without class input (default: the pair's)", group="models", free=True
    )
    method: str | None = option(
        None,
        "other methods, separated by commas (default: those of grad_cam and generic_attention that fit)",
        group="options",
        metavar="NAME[,NAME...]",
    )
    steps: int = option(0, "LTX steps per image and class (0: pLTX, one forward pass)")
    finetune_lr: float | None = option(None, "learning rate of the steps (default: as run_seg_cls_opt.py)")
    batch_size: int | None = option(None, "images side by side (default: 16; ordered, CNNs: 4)", free=True)
