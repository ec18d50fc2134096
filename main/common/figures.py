"""Files of pictures: single ones, sheets of images beside their maps, and curves."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ltx.main.common.drawing import PLAIN, Style
from ltx.models.files import replace_file

_CELL_INCHES = 1.5
_AXIS_TITLES = {
    "RISE_insertion": "share of pixels inserted",
    "AIC": "information (scaled file size)",
    "SIC": "information (scaled file size)",
}


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write one picture, (H, W), (H, W, 3) or (H, W, 4) in [0, 1], 8 bits each, as PNG, JPEG or WebP."""
    values, kind = to_image(pixels), path.suffix[1:].replace("jpg", "jpeg")
    how: dict[str, Any] = {"compress_level": 3} if kind == "png" else {"quality": 80}
    replace_file(path, lambda temporary: values.save(temporary, format=kind, **how))


def to_image(pixels: np.ndarray) -> Image.Image:
    """A picture in [0, 1] as a Pillow image of 8 bits."""
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def write_sheet(
    path: Path,
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    captions: Sequence[str] = (),
    cell_inches: float = _CELL_INCHES,
) -> None:
    """Write rows of pictures, (H, W, 3) in [0, 1] or maps (H, W) in [0, 1], with a title per column.

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
            axes[r, c].imshow(picture.clip(0, 1) if picture.ndim == 3 else PLAIN.colours(picture))
        if captions:
            lies = {"rotation": 0, "ha": "right", "va": "center"} if "\n" in captions[r] else {}
            axes[r, 0].set_ylabel(captions[r], fontsize=6, parse_math=False, **lies)
    for c, title in enumerate(columns):
        axes[0, c].set_title(title, fontsize=7, parse_math=False)
    _save(figure, path)


@dataclass(frozen=True)
class Strip:
    """A row of pictures with words above it.

    Attributes:
        pictures: (H, W, 3) in [0, 1], all of one size; the second is a map, and gets a colour bar.
        titles: one per picture.
        heading: line in bold.
        lines: below it.
        warnings: below those, in red.
        peak: value at the top of the colour bar.
    """

    pictures: Sequence[np.ndarray]
    titles: Sequence[str]
    heading: str
    lines: Sequence[str]
    warnings: Sequence[str]
    peak: float

    def words(self, width: float) -> list[tuple[str, dict[str, Any]]]:
        """The lines above the pictures, wrapped to a width in inches, and how each is set."""
        known = [(self.heading, {"weight": "bold", "size": 11})] if self.heading else []
        known += [(line, {"size": 9.5}) for line in self.lines]
        known += [(f"Warning: {line}", {"size": 9.5, "color": "#b91c1c"}) for line in self.warnings]
        return [(part, how) for line, how in known for part in textwrap.wrap(line, int(width * 12)) or [""]]


def write_strips(path: Path, strips: Sequence[Strip], style: Style = PLAIN) -> None:
    """Write a sheet of strips, one below the other."""
    edge, gap, bar, line, cell = 0.12, 0.06, 0.46, 0.2, _CELL_INCHES * 1.6
    n, shape = len(strips[0].pictures), strips[0].pictures[0].shape
    tall = cell * shape[0] / shape[1]
    if tall > 1.4 * cell:  # portraits and panoramas
        cell, tall = cell * 1.4 * cell / tall, 1.4 * cell
    width = max(2 * edge + n * cell + (n - 1) * gap + bar, 6.5)
    words = [strip.words(width) for strip in strips]
    heights = [line * (len(some) + 1) + tall + 2 * edge for some in words]
    figure, top = Figure(figsize=(width, sum(heights))), 0.0

    def place(x: float, y: float, w: float, h: float):
        return figure.add_axes((x / width, 1 - (y + h) / sum(heights), w / width, h / sum(heights)))

    for strip, some, height in zip(strips, words, heights, strict=True):
        y = top + edge
        for text, how in some:
            figure.text(edge / width, 1 - y / sum(heights), text, va="top", parse_math=False, **how)
            y += line
        y += line
        for number, (picture, title) in enumerate(zip(strip.pictures, strip.titles, strict=True)):
            x = edge + number * (cell + gap) + (bar if number > 1 else 0)
            axis = place(x, y, cell, tall)
            axis.imshow(picture.clip(0, 1), aspect="auto", interpolation="antialiased")
            axis.set_title(title, fontsize=7.5, pad=3, parse_math=False)
            axis.set_axis_off()
            if number == 1:
                _draw_bar(place(x + cell + 0.05, y, 0.1, tall), strip.peak, style)
        top += height
    _save(figure, path)


def _draw_bar(axis, peak: float, style: Style) -> None:
    """Draw the colours of a map from 0 to its peak."""
    axis.imshow(style.colours(np.linspace(1, 0, 256))[:, None], aspect="auto", extent=(0, 1, 0, 1))
    axis.set_xticks([])
    axis.set_yticks([0, 1], ["0", f"{peak:.2g}"], fontsize=7)
    axis.yaxis.tick_right()
    axis.tick_params(length=2, pad=1)


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
    """Label of the horizontal axis of a metric's curve."""
    return _AXIS_TITLES.get(name, "share of pixels removed")


def plot_curves(
    path: Path,
    curves: dict[str, dict[str, list[float]]],
    title: str,
    axes: dict[str, list[float]] | None = None,
) -> None:
    """Write `curves_figure` to a PNG file."""
    _save(curves_figure(curves, title, axes), path)


def _save(figure: Figure, path: Path) -> None:
    # Without the date and version that matplotlib adds, the same run gives the same file.
    how: dict[str, Any] = {"format": "png", "dpi": 130, "metadata": {"Software": None}}
    replace_file(path, lambda temporary: figure.savefig(temporary, **how))
