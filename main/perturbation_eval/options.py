"""Options of `run_perturbation_eval.py`."""
from dataclasses import MISSING, dataclass
from pathlib import Path

from ltx.config import FILLS
from ltx.main.common.options import (
    BadImageOptions,
    DownloadOptions,
    RunOptions,
    ShardOptions,
    SpeedOptions,
    option,
)


@dataclass(frozen=True, kw_only=True)
class PerturbationOptions(RunOptions, BadImageOptions, SpeedOptions, ShardOptions, DownloadOptions):
    """`run_perturbation_eval.py`: mask files to POS, NEG, DEL, INS, ADP, PIC."""

    run_folder: Path = option(MISSING, "folder of a run that made masks", flag="RUN_FOLDER")
    score_class: str | None = option(
        None, "class that is scored (default: as the run)", choices=("explained", "target", "predicted")
    )
    fill: str = option("black", "what stands where pixels are removed", choices=FILLS)
    metrics: str = option(
        "fast",
        "'fast', 'all' (with RISE's and AIC, SIC: hundreds of forward passes per map), or names with commas",
        metavar="fast|all|NAME[,NAME...]",
    )
    exclude_manifest: Path | None = option(
        None, "leave out the images that this CSV lists (those trained on, say)", metavar="FILE"
    )
    batch_size: int | None = option(
        None, "images through the explainee at once (default: 32 on CPU, 256 on GPU)", free=True
    )
