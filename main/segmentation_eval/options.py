"""Options of the segmentation stages and of `run_segmentation_eval.py`."""
from dataclasses import MISSING, dataclass
from pathlib import Path

from ltx.main.common.options import BadImageOptions, ReadOptions, SegmentationSetOptions, ShardOptions, option
from ltx.main.seg_classification.options import LtxOptions


@dataclass(frozen=True, kw_only=True)
class VoidOptions:
    """What the pixels are that VOC leaves unlabelled."""

    voc_void: str = option(
        "both",
        "VOC's void pixels (255) count as foreground (released), are ignored (columns *_void_ignored), or "
        "both, side by side",
        choices=("both", "foreground", "ignore"),
        free=True,
    )


@dataclass(frozen=True, kw_only=True)
class SegStageBOptions(LtxOptions, SegmentationSetOptions, VoidOptions):
    """`seg_stage_b.py`: LTX masks of an image set with object masks, scored by segmentation."""


@dataclass(frozen=True, kw_only=True)
class SegStageAOptions(SegStageBOptions):
    """`seg_stage_a.py`: the same with pLTX masks."""

    RUN_BASE_MODEL: bool = option(
        True, "pLTX masks only, no finetuning", flag="--RUN-BASE-MODEL", group="finetuning"
    )


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(ReadOptions, BadImageOptions, ShardOptions, VoidOptions):
    """`run_segmentation_eval.py`: mask files to PA, mAP, mIoU, mF1."""

    run_folder: Path = option(MISSING, "folder of a run that made masks", flag="RUN_FOLDER")
    segmentation_root: Path | None = option(
        None, "folder that holds the run's image set now (default: where it was)", metavar="DIR", free=True
    )
    exclude_manifest: Path | None = option(
        None, "leave out the images that this CSV lists (those trained on, say)", metavar="FILE"
    )
