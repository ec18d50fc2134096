"""Options of `run_baselines.py`."""
from dataclasses import MISSING, dataclass
from pathlib import Path

from ltx.main.common.options import (
    BadImageOptions,
    ChosenImageOptions,
    ExplaineeOptions,
    PlaceOptions,
    RunOptions,
    SanityOptions,
    ShardOptions,
    option,
)


@dataclass(frozen=True, kw_only=True)
class BaselineOptions(
    RunOptions,
    BadImageOptions,
    ShardOptions,
    PlaceOptions,
    ChosenImageOptions,
    SanityOptions,
    ExplaineeOptions,
):
    """`run_baselines.py`: other methods' saliency maps, in the same mask files."""

    method: str = option(MISSING, "methods, separated by commas, or 'all'", metavar="NAME[,NAME...]")
    batch_size: int = option(8, "images explained at once", free=True)
    unit_size: int = option(64, "images per mask file", metavar="N")
    evaluate: bool = option(True, "score the maps at the end", free=True)
    metrics: str = option("fast", "which metrics, as of run_perturbation_eval.py", free=True)
    select_best_of: int = option(
        1, "also keep, of N smoothing strengths, the map with the lowest POS (LTX tries 25)", metavar="N"
    )
    smoothgrad_samples: int = option(50, "noisy copies", group="methods")
    smoothgrad_noise: float = option(0.15, "their noise, as a share of the image's range", group="methods")
    ig_steps: int = option(50, "steps of integrated gradients", group="methods")
    rise_masks: int = option(4000, "masks of RISE", group="methods")
    rise_grid: int = option(7, "cells of a mask of RISE, a side", group="methods")
    maps_path: Path | None = option(
        None, "folder of .npy or .png maps, for --method import", group="methods", metavar="DIR"
    )
    maps_name: str | None = option(
        None, "how to name imported maps (default: the folder's name)", group="methods"
    )
