"""Pictures: sheets of images beside their maps, and curves."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

_MAP_COLOURS = "jet"
_CELL_INCHES = 1.5


def overlay(image: Tensor, saliency: Tensor) -> np.ndarray:
    """Image (3, H, W) in [0, 1] under its map (H, W) in [0, 1]: (H, W, 3) in [0, 1]."""
    colours = matplotlib.colormaps[_MAP_COLOURS](saliency.numpy())[..., :3]
    return 0.5 * image.permute(1, 2, 0).numpy() + 0.5 * colours


def cells(image: Tensor, saliency: Tensor) -> list[np.ndarray]:
    """Image (3, H, W), saliency map (H, W), overlay and masked image, as pictures."""
    pixels = image.permute(1, 2, 0).numpy()
    return [pixels, saliency.numpy(), overlay(image, saliency), pixels * saliency.numpy()[..., None]]


CELL_TITLES = ("image", "saliency map", "overlay", "masked image")


def write_sheet(
    path: Path, rows: Sequence[Sequence[np.ndarray]], columns: Sequence[str], captions: Sequence[str] = ()
) -> None:
    """Writes rows of pictures, (H, W, 3) in [0, 1] or maps (H, W) in [0, 1], with a title per column.

    Args:
        path: PNG file.
        rows: pictures by row.
        columns: titles of the columns.
        captions: words to the left of each row.
    """
    n_rows, n_columns = len(rows), max(len(row) for row in rows)
    figure = Figure(figsize=(_CELL_INCHES * n_columns, _CELL_INCHES * n_rows + 0.3), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            axes[r, c].imshow(picture.clip(0, 1), cmap=_MAP_COLOURS, vmin=0, vmax=1)
        if captions:
            axes[r, 0].set_ylabel(captions[r], fontsize=6)
    for c, title in enumerate(columns):
        axes[0, c].set_title(title, fontsize=7)
    _save(figure, path)


def plot_curves(path: Path, curves: dict[str, dict[str, list[float]]], title: str) -> None:
    """Writes removal curves: one panel per metric, one line per variant, 0 ... 0.9 of the pixels removed."""
    names = list(next(iter(curves.values())))
    figure = Figure(figsize=(3.2 * len(names), 3), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        for variant, by_metric in curves.items():
            axis.plot(np.arange(len(by_metric[name])) / 10, by_metric[name], label=variant, linewidth=1.2)
        axis.set_title(f"{name} curve", fontsize=9)
        axis.set_xlabel("share of pixels removed", fontsize=8)
        axis.set_ylim(-0.02, 1.02)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(title, fontsize=8)
    axes[-1].legend(fontsize=7)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    # Without the date and version that matplotlib adds, the same run gives the same file.
    figure.savefig(temporary, format="png", dpi=130, metadata={"Software": None})
    temporary.replace(path)
