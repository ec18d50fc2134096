"""Options of `run_baselines.py`."""

from dataclasses import MISSING
from pathlib import Path

from ltx.main.common import options as common
from ltx.main.common.options import option, options


@options()
class BaselineOptions(
    common.RunOptions,
    common.BadImageOptions,
    common.ShardOptions,
    common.PlaceOptions,
    common.ChosenImageOptions,
    common.SanityOptions,
    common.ExplaineeOptions,
    common.MetricsOptions,
):
    """`run_baselines.py`: saliency maps of other methods, in the same mask files."""

    method: str = option(
        MISSING,
        "methods, separated by commas, or 'all'; module:function is your f(model, inputs, targets)",
        metavar="NAME[,NAME...]",
    )
    batch_size: int = option(8, "images explained at once", free=True)
    unit_size: int = option(64, "images per mask file", metavar="N")
    select_best_of: int = option(1, "also keep the best by POS of N smoothing strengths", metavar="N")
    smoothgrad_samples: int = option(50, "SmoothGrad: noisy copies per image", group="methods")
    smoothgrad_noise: float = option(
        0.15, "SmoothGrad: noise, as a share of the image's range", group="methods"
    )
    ig_steps: int = option(50, "integrated gradients: steps along the path", group="methods")
    rise_masks: int = option(4000, "RISE: masks per image", group="methods")
    rise_grid: int = option(7, "RISE: cells per side of a mask", group="methods")
    maps_path: Path | None = option(None, "import: folder of .npy or .png maps", group="methods")
    maps_name: str | None = option(None, "import: name of the maps (default: the folder's)", group="methods")
