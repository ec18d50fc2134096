"""Figures of the page as inline SVG: curves of all rows, and image-by-image scatter of two of them.

Text and axes take the page's own colour, so that they are readable in light and dark.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.figure import Figure

from ltx.main.common.figures import axis_title
from ltx.main.report_page.rows import Comparison, Row
from ltx.main.report_page.statistics import Statistics

_TEXT = "#010203"
_REFERENCE, _POINTS = "#e4572e", "#3b82c4"
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_PANEL_INCHES = 3.1
# Names the line of each row, so that the page can show one of them alone.
_LINE, _CLOUD = "line-of-row-", "cloud-of-points"


def line_styles(rows: Sequence[Row], reference: str) -> dict[str, dict]:
    """Colour, dashes and width of each row's line, the reference's standing out."""
    palette = matplotlib.colormaps["tab10"]
    # tab10's red and orange are too near the reference's colour.
    colours = [matplotlib.colors.to_hex(palette(i)) for i in (0, 2, 4, 9, 6, 8, 5, 7)]
    styles, place = {}, 0
    for row in rows:
        if row.label == reference:
            styles[row.label] = {"color": _REFERENCE, "linestyle": "-", "linewidth": 2.6, "zorder": 5}
            continue
        dashes = _DASHES[place // len(colours) % len(_DASHES)]
        styles[row.label] = {"color": colours[place % len(colours)], "linestyle": dashes, "linewidth": 1.3}
        place += 1
    return styles


def curve_panels(
    comparison: Comparison, statistics: Statistics, styles: dict[str, dict]
) -> list[tuple[str, str]]:
    """A panel per metric that has a curve: (metric, SVG)."""
    panels = []
    for name in comparison.better:
        curves = {
            label: statistics.figures[label][name].curve
            for label in styles
            if name in statistics.figures[label] and statistics.figures[label][name].curve is not None
        }
        if not curves:
            continue
        figure, axis = _panel()
        for place, label in enumerate(styles):
            if label in curves:
                axis.plot(*curves[label], **styles[label], gid=f"{_LINE}{place}")
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel(axis_title(name))
        panels.append((name, _svg(figure, f"curve-{name}")))
    return panels


def scatter_panels(
    comparison: Comparison, reference: Row, rival: Row, key: Callable[[int], str]
) -> list[tuple[str, str]]:
    """A panel per metric that ranks and has values of single images: (metric, SVG), a point per image.

    Args:
        comparison: the images.
        reference: upwards.
        rival: to the right.
        key: of the view that an image's point opens; nothing where there is none.
    """
    panels = []
    for name, higher in comparison.better.items():
        if higher is None or name not in reference.measures or name not in rival.measures:
            continue
        x, y = (row.measures[name].per_image for row in (rival, reference))
        counted = np.isfinite(x) & np.isfinite(y)
        if np.unique(np.concatenate([x[counted], y[counted]])).size < 3:
            continue  # a yes or no of each image is no scatter
        figure, axis = _panel()
        low, high = min(x[counted].min(), y[counted].min()), max(x[counted].max(), y[counted].max())
        edge = 0.03 * (high - low)
        axis.plot([low, high], [low, high], color=_TEXT, linewidth=0.8, alpha=0.5)
        axis.scatter(x[counted], y[counted], s=14, color=_POINTS, alpha=0.55, linewidths=0, gid=_CLOUD)
        axis.set_xlim(low - edge, high + edge)
        axis.set_ylim(low - edge, high + edge)
        axis.set_aspect("equal")
        wins = int(((y > x) if higher else (y < x))[counted].sum())
        losses = int(((y < x) if higher else (y > x))[counted].sum())
        axis.set_title(f"better on {wins}, worse on {losses} of {counted.sum()}", fontsize=8, color=_TEXT)
        points = [(comparison.images[i], key(i)) for i in np.flatnonzero(counted).tolist()]
        panels.append((name, _svg(figure, f"scatter-{name}", points)))
    return panels


def _panel():
    figure = Figure(figsize=(_PANEL_INCHES, _PANEL_INCHES * 0.92), layout="constrained")
    axis = figure.subplots()
    figure.patch.set_alpha(0)
    axis.patch.set_alpha(0)
    axis.grid(color=_TEXT, alpha=0.15, linewidth=0.6)
    axis.tick_params(colors=_TEXT, labelsize=8)
    axis.xaxis.label.set_color(_TEXT)
    axis.xaxis.label.set_size(8)
    for side, spine in axis.spines.items():
        spine.set_color(_TEXT)
        spine.set_visible(side in ("left", "bottom"))
    return figure, axis


def _svg(figure: Figure, name: str, points: Sequence[tuple[str, str]] = ()) -> str:
    """The figure as an SVG element whose ids no other figure of the page has.

    Args:
        figure: with ids of lines and of the cloud of points.
        name: of the figure.
        points: name and key of the view of each point of the cloud.
    """
    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}
    with matplotlib.rc_context(settings):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(rf'<g id="{_LINE}(\d+)">', r'<g class="line" data-row="\1">', svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", _with_keys(svg, points) if points else svg)
    svg = re.sub(r"<svg ", '<svg role="img" ', svg, count=1)
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)


def _with_keys(svg: str, points: Sequence[tuple[str, str]]) -> str:
    """The SVG with points that can be pressed, or reached by the keyboard, where they have a view."""
    before, mark, rest = svg.partition(f'<g id="{_CLOUD}">')
    cloud, end, after = rest.partition("</g>")
    if cloud.count("<use ") != len(points):  # matplotlib draws very few points in another way
        return svg
    named = iter(points)

    def link(_: re.Match) -> str:
        name, key = next(named)
        if not key:
            return "<use "
        words = f'aria-label="{escape(name)}"'
        return f'<use class="point" role="button" tabindex="0" {words} data-view="{escape(key)}" '

    return before + mark + re.sub("<use ", link, cloud) + end + after
