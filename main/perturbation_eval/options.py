"""Options of `run_perturbation_eval.py`."""

from dataclasses import MISSING
from pathlib import Path

from ltx.config import FILLS
from ltx.main.common import options as common
from ltx.main.common.options import option, options


@options()
class PerturbationOptions(
    common.RunOptions,
    common.BadImageOptions,
    common.SpeedOptions,
    common.ShardOptions,
    common.DownloadOptions,
):
    """`run_perturbation_eval.py`: mask files to POS, NEG, DEL, INS, ADP, PIC."""

    run_folder: Path = option(MISSING, "folder of a run with masks", flag="RUN_FOLDER")
    score_class: str | None = option(
        None, "class to score (default: the run's)", choices=("explained", "target", "predicted")
    )
    fill: str = option("black", "fill of removed pixels", choices=FILLS)
    metrics: str = option(
        "fast",
        "'fast', 'all' (with RISE deletion and insertion, AIC and SIC: hundreds of passes per map), or names",
        metavar="fast|all|NAME[,NAME...]",
    )
    exclude_manifest: Path | None = option(None, "leave out the images of this CSV, such as training images")
    batch_size: int | None = option(
        None, "images per forward pass (default: 32 on CPU, 256 on GPU)", free=True
    )
