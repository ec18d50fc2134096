"""Options of `run_class_eval.py`."""
from dataclasses import dataclass
from pathlib import Path

from ltx.main.common.options import PairOptions, PlaceOptions, RunOptions, SegmentationSetOptions, option


@dataclass(frozen=True, kw_only=True)
class ClassEvalOptions(RunOptions, PlaceOptions, SegmentationSetOptions, PairOptions):
    """`run_class_eval.py`: do maps follow the class that is asked for?"""

    plain_checkpoint: Path | None = option(
        None, "an explainer that is not class-conditional, to stand beside it (default: the pair's)",
        group="models", metavar="PATH", free=True,
    )  # fmt: skip
    method: str | None = option(
        None,
        "other methods, separated by commas (default: grad_cam and generic_attention, where they fit)",
        metavar="NAME[,NAME...]",
    )
    steps: int = option(0, "LTX masks per question (0: pLTX, one forward pass)", group="finetuning")
    finetune_lr: float = option(5e-5, "rate of the steps", group="finetuning")
    batch_size: int = option(16, "images finetuned side by side", group="finetuning", free=True)
