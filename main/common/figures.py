"""Pictures: sheets of images beside their maps, and curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ltx.models.files import replace_file

_MAP_COLOURS = "jet"
_CELL_INCHES = 1.5
_AXIS_TITLES = {
    "RISE_insertion": "share of pixels inserted",
    "AIC": "information (scaled file size)",
    "SIC": "information (scaled file size)",
}


def overlay(image: Tensor, saliency: Tensor) -> np.ndarray:
    """Image (3, H, W) in [0, 1] under its map (H, W) in [0, 1]: (H, W, 3) in [0, 1]."""
    colours = matplotlib.colormaps[_MAP_COLOURS](saliency.numpy())[..., :3]
    return 0.5 * image.permute(1, 2, 0).numpy() + 0.5 * colours


def cells(image: Tensor, saliency: Tensor) -> list[np.ndarray]:
    """Image (3, H, W), saliency map (H, W), overlay and masked image, as pictures.

    Map and overlay are scaled to the map's own maximum, so that faint masks show too; the masked image is
    what the explainee sees.
    """
    pixels, scaled = image.permute(1, 2, 0).numpy(), saliency / saliency.max().clamp(min=1e-12)
    return [pixels, scaled.numpy(), overlay(image, scaled), pixels * saliency.numpy()[..., None]]


CELL_TITLES = ("image", "saliency map (scaled)", "overlay", "masked image")


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Writes one picture, (H, W, 3) or (H, W) in [0, 1], as an 8-bit PNG of that size."""
    values = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
    replace_file(path, lambda temporary: values.save(temporary, format="PNG"))


def write_sheet(
    path: Path,
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    captions: Sequence[str] = (),
    cell_inches: float = _CELL_INCHES,
) -> None:
    """Writes rows of pictures, (H, W, 3) in [0, 1] or maps (H, W) in [0, 1], with a title per column.

    Args:
        path: PNG file.
        rows: pictures by row.
        columns: titles of the columns.
        captions: words to the left of each row.
        cell_inches: width of each picture; 130 pixels an inch.
    """
    n_rows, n_columns = len(rows), max(len(row) for row in rows)
    aspect = rows[0][0].shape[0] / rows[0][0].shape[1]
    figure = Figure(
        figsize=(cell_inches * n_columns, cell_inches * aspect * n_rows + 0.3), layout="constrained"
    )
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            axes[r, c].imshow(picture.clip(0, 1), cmap=_MAP_COLOURS, vmin=0, vmax=1)
        if captions:
            lies = {"rotation": 0, "ha": "right", "va": "center"} if "\n" in captions[r] else {}
            axes[r, 0].set_ylabel(captions[r], fontsize=6, parse_math=False, **lies)
    for c, title in enumerate(columns):
        axes[0, c].set_title(title, fontsize=7, parse_math=False)
    _save(figure, path)


def curves_figure(
    curves: dict[str, dict[str, list[float]]], title: str, axes: dict[str, list[float]] | None = None
) -> Figure:
    """Removal curves: one panel per metric, one line per variant.

    Args:
        curves: by variant and metric.
        title: what stands beside the first panel.
        axes: place of each point by metric; default 0, 0.1, ...
    """
    names = list(next(iter(curves.values())))
    height = max(3, 0.16 * len(curves))
    figure = Figure(figsize=(3.2 * len(names) + 1.8, height), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(curves)))
    for panel, name in zip(panels, names, strict=True):
        for colour, (variant, by_metric) in zip(colours, curves.items(), strict=True):
            if name in by_metric:
                y = by_metric[name]
                x = axes[name] if axes else np.arange(len(y)) / 10
                panel.plot(x, y, label=variant, linewidth=1.2, color=colour)
        panel.set_title(f"{name} curve", fontsize=9)
        panel.set_xlabel(axis_title(name), fontsize=8)
        panel.set_ylim(-0.02, 1.02)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(title, fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=6, loc="outside right upper")
    return figure


def axis_title(name: str) -> str:
    """What the horizontal axis of a metric's curve shows."""
    return _AXIS_TITLES.get(name, "share of pixels removed")


def plot_curves(
    path: Path,
    curves: dict[str, dict[str, list[float]]],
    title: str,
    axes: dict[str, list[float]] | None = None,
) -> None:
    """Writes `curves_figure` to a PNG file."""
    _save(curves_figure(curves, title, axes), path)


def _save(figure: Figure, path: Path) -> None:
    # Without the date and version that matplotlib adds, the same run gives the same file.
    how: dict[str, Any] = {"format": "png", "dpi": 130, "metadata": {"Software": None}}
    replace_file(path, lambda temporary: figure.savefig(temporary, **how))
