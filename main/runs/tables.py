"""Tables of results: per_image.csv, summary.json, and what is printed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ltx.main.runs.files import read_json, write_json, write_rows
from ltx.main.runs.run_folder import read_run
from ltx.main.runs.run_record import Figure, SummaryRecord, check
from ltx.main.runs.skipped import counts


class Metric(Protocol):
    """A metric in a table; `higher_is_better` is None if it does not rank."""

    @property
    def name(self) -> str: ...

    @property
    def higher_is_better(self) -> bool | None: ...


def write_per_image(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write one line per image and variant; floats with 6 significant digits, "" for NaN."""

    def text(value):
        if not isinstance(value, float):
            return value
        return "" if math.isnan(value) else f"{value:.6g}"

    write_rows(path, header, ([text(value) for value in row] for row in rows))


def entry(mean: float | None, n: int, higher_is_better: bool | None) -> Figure:
    """Return one figure of summary.json."""
    return {"mean": mean, "n": n, "higher_is_better": higher_is_better}


def summary_rows(
    variants: Sequence[str], metrics: Sequence[Metric], means: np.ndarray, n: int
) -> dict[str, dict[str, Figure]]:
    """Return `rows` of summary.json from means (variants, metrics) over n images."""
    return {
        variant: {
            metric.name: entry(float(means[v, m]), n, metric.higher_is_better)
            for m, metric in enumerate(metrics)
        }
        for v, variant in enumerate(variants)
    }


def write_summary(folder: Path, protocol: str, settings: dict, run_hash: str, rows: dict, **more) -> None:
    """Write summary.json, with the number of images that the run and the evaluation left out."""
    content: dict[str, Any] = {"protocol": protocol, "settings": settings, "run_hash": run_hash, "rows": rows}
    content |= counts(folder.parents[1], folder)
    write_json(folder / "summary.json", content | more)


def read_summary(folder: Path) -> SummaryRecord:
    """Return summary.json of a results folder.

    Raises:
        UserError: it is missing or damaged.
    """
    path = Path(folder) / "summary.json"
    summary: Any = read_json(path)
    check(path, summary, SummaryRecord, "delete its folder and evaluate again")
    return summary


def means_of(rows: dict) -> dict[str, dict[str, float]]:
    """Return `rows` of a summary as plain numbers by variant and metric."""
    return {
        variant: {name: entry["mean"] for name, entry in row.items() if entry["mean"] is not None}
        for variant, row in rows.items()
    }


def arrow(higher_is_better: bool | None) -> str:
    """Return the arrow of the better direction."""
    return {True: "↑", False: "↓", None: ""}[higher_is_better]


def candidates_of(run_folder: Path) -> dict[str, int]:
    """Number of maps that each variant of a run was chosen from, as far as the run says."""
    return read_run(run_folder).get("candidates", {})


def format_table(rows: dict, title: str, candidates: dict[str, int] | None = None) -> str:
    """Return `rows` of a summary as text, an arrow for the better direction.

    Args:
        rows: as in summary.json.
        title: line above the table.
        candidates: number of maps that each variant was chosen from; a column if any is above 1.
    """
    if any(n > 1 for n in (candidates or {}).values()):
        rows = {
            variant: {"maps tried": entry(candidates.get(variant, 1), 0, None)} | row
            for variant, row in rows.items()
        }
    first = next(iter(rows.values()))
    heads = [f"{name} {arrow(entry['higher_is_better'])}".strip() for name, entry in first.items()]
    width = max(len("method"), *(len(variant) for variant in rows))
    widths = [max(len(head), 7) for head in heads]
    lines = [
        title,
        f"{'method':<{width}}  " + "  ".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True)),
    ]
    for variant, row in rows.items():
        cells = [row.get(name, {}).get("mean") for name in first]
        texts = [
            "-" if cell is None else str(cell) if isinstance(cell, int) else f"{cell:.2f}" for cell in cells
        ]
        lines.append(
            f"{variant:<{width}}  " + "  ".join(f"{t:>{w}}" for t, w in zip(texts, widths, strict=True))
        )
    return "\n".join(lines)
