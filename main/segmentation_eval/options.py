"""Options of the segmentation stages and of `run_segmentation_eval.py`."""

from dataclasses import MISSING
from pathlib import Path

from ltx.main.common import options as common
from ltx.main.common.options import option, options
from ltx.main.seg_classification.options import LtxOptions


@options(free=True)
class VoidOptions:
    """Meaning of the pixels that VOC leaves unlabelled."""

    voc_void: str = option(
        "both",
        "void pixels of VOC (255): foreground (released), ignored (columns *_void_ignored), or both",
        choices=("both", "foreground", "ignore"),
    )


@options()
class SegStageBOptions(LtxOptions, common.SegmentationSetOptions, VoidOptions):
    """`seg_stage_b.py`: LTX masks of an image set with object masks, scored by segmentation."""


@options("finetuning")
class SegStageAOptions(SegStageBOptions):
    """`seg_stage_a.py`: pLTX masks of an image set with object masks, scored by segmentation."""

    RUN_BASE_MODEL: bool = option(True, "write pLTX masks, without finetuning", flag="--RUN-BASE-MODEL")


@options()
class SegmentationOptions(common.ReadOptions, common.BadImageOptions, common.ShardOptions, VoidOptions):
    """`run_segmentation_eval.py`: mask files to PA, mAP, mIoU, mF1."""

    run_folder: Path = option(MISSING, "folder of a run with masks", flag="RUN_FOLDER")
    segmentation_root: Path | None = option(None, "folder of the image set (default: the run's)", free=True)
    exclude_manifest: Path | None = option(None, "leave out the images of this CSV, such as training images")
