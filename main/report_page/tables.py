"""Tables of a comparison, as plain data for HTML, Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ltx.main.report_page.definitions import definition
from ltx.main.report_page.rows import Comparison, Row, true_row
from ltx.main.report_page.statistics import AHEAD, BEHIND, SAME, Statistics
from ltx.main.runs.tables import arrow

NOTHING = "–"
MARKS = {AHEAD: "▲", SAME: "·", BEHIND: "▼"}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: content.
        value: sort key; None sorts last.
        small: smaller text below the content, an interval.
        emphasis: `best` of its column, `best-single` of the rows with one map tried, or nothing.
        mark: `ahead`, `level`, `behind`, `reference` or nothing.
    """

    text: str
    value: float | None = None
    small: str = ""
    emphasis: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """Heading of a column: its name, the better direction and an explanation."""

    name: str
    arrow: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its label."""

    key: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=tuple)


def number(value: float | None) -> str:
    """Return a number with two decimals."""
    return NOTHING if value is None else f"{value:.2f}"


def signed(value: float) -> str:
    """Return a number with two decimals and a sign, except for zero."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text


def _columns(better: dict[str, bool | None]) -> list[Column]:
    return [Column(name, arrow(higher), definition(name)) for name, higher in better.items()]


def score_table(
    key: str, title: str, comparison: Comparison, statistics: Statistics, rows: Sequence[Row] | None = None
) -> Table:
    """Return all rows by all metrics, the best in bold, with intervals and the number of maps tried."""
    rows = [row for row in comparison.rows if not row.randomised] if rows is None else rows
    ranked = [row for row in rows if not row.oracle and not row.randomised]
    best = _best(ranked, comparison, statistics)
    best_single = _best([row for row in ranked if row.candidates == 1], comparison, statistics)
    made = []
    for row in rows:
        cells = [_label(row, statistics), Cell(str(row.candidates), row.candidates)]
        for name in comparison.better:
            cell = _score(statistics, row, name)
            eligible = row in ranked
            if eligible and cell.text == best.get(name):
                cell = replace(cell, emphasis="best")
            elif eligible and row.candidates == 1 and cell.text == best_single.get(name):
                cell = replace(cell, emphasis="best-single")
            cells.append(cell)
        made.append(cells)
    head = [
        Column("method"),
        Column("maps tried", "", "number of maps of each image that this one was chosen from"),
    ]
    return Table(key, title, head + _columns(comparison.better), made, _notes(comparison, rows))


def _label(row: Row, statistics: Statistics) -> Cell:
    return Cell(row.label, mark="reference" if row.label == statistics.reference else "")


def _score(statistics: Statistics, row: Row, name: str) -> Cell:
    figure = statistics.figures[row.label].get(name)
    if figure is None or figure.mean is None:
        return Cell(NOTHING)
    bounds = statistics.intervals[row.label].get(name)
    small = f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else ""
    return Cell(number(figure.mean), figure.mean, small)


def _best(rows: Sequence[Row], comparison: Comparison, statistics: Statistics) -> dict[str, str]:
    """Return the text of the best figure of each metric that ranks, unless all are equal."""
    found = {}
    for name, higher in comparison.better.items():
        figures = [statistics.figures[row.label].get(name) for row in rows]
        means = [figure.mean for figure in figures if figure is not None and figure.mean is not None]
        if higher is not None and (len(rows) == 1 or len(set(map(number, means))) > 1):
            found[name] = number(max(means) if higher else min(means))
    return found


def _notes(comparison: Comparison, rows: Sequence[Row]) -> list[str]:
    notes = []
    if any(row.candidates > 1 for row in rows):
        notes.append(
            "Rows with more than one map tried chose theirs among several of the same image: the best of all "
            "rows is bold, the best of those with a single map underlined where it is another. best_pos "
            "chose by POS itself, which is then reported; best_loss by the training loss."
        )
    if any(row.oracle for row in rows):
        notes.append("oracle is the true object mask, no method; it is never bold.")
    stopped = [row.label for row in rows if row.run.record.early_stop]
    if stopped:
        notes.append(f"Stopped early, as released: {', '.join(stopped)}.")
    return notes


def difference_table(key: str, comparison: Comparison, statistics: Statistics) -> Table:
    """Return how much better the reference is than every other row, with intervals."""
    better = {name: higher for name, higher in comparison.better.items() if higher is not None}
    made = []
    for row in comparison.rows:
        if row.label == statistics.reference or row.randomised:
            continue
        cells = [Cell(row.label)]
        for name in better:
            difference = statistics.differences[row.label].get(name)
            if difference is None:
                cells.append(Cell(NOTHING))
                continue
            small = "" if difference.low is None else f"{signed(difference.low)} to {signed(difference.high)}"
            cells.append(Cell(signed(difference.value), difference.value, small, mark=difference.verdict))
        made.append(cells)
    return Table(
        key,
        f"How much better {statistics.reference} is than each other row",
        [Column(f"{statistics.reference} against"), *_columns(better)],
        made,
        [
            "Positive: the reference is better, whichever direction the metric has. ▲ ahead and ▼ behind: "
            "the paired 95% interval excludes zero; · level: it does not. With many comparisons, one in "
            "twenty of the truly level ones is marked by chance."
        ],
    )


def sanity_table(comparison: Comparison, statistics: Statistics) -> Table | None:
    """Return rows of models with random weights below those of the true model; None if there are none."""
    made, unchanged = [], []
    for row in comparison.rows:
        if not row.randomised:
            continue
        true = true_row(comparison, row)
        differences = {} if true is None else statistics.losses[row.label]
        if true is not None:
            made.append([Cell(true.label)] + [_score(statistics, true, name) for name in comparison.better])
            unchanged += [row.label] if _equal(true, row) else []
        cells = [(name, _score(statistics, row, name)) for name in comparison.better]
        made.append(
            [Cell(row.label)]
            + [replace(c, mark=differences[name].verdict) if name in differences else c for name, c in cells]
        )
    if not made:
        return None
    notes = [
        "A map that depends on the model must lose its score when the model's weights are drawn anew "
        "(Adebayo et al. 2018); the true model scores both. ▲: the maps of the true model are ahead by their "
        "paired 95% interval, ▼: behind, ·: level."
    ]
    if unchanged:
        notes.append(
            f"Not changed at all: {', '.join(unchanged)}. These maps do not use the explainee; pLTX uses its "
            "explainer alone."
        )
    return Table(
        "sanity",
        "Sanity check: the same methods on models with random weights",
        [Column("method"), *_columns(comparison.better)],
        made,
        notes,
    )


def _equal(one: Row, other: Row) -> bool:
    """Return True if two rows have the same values on every image."""
    return all(
        name in other.measures and np.array_equal(m.per_image, other.measures[name].per_image, equal_nan=True)
        for name, m in one.measures.items()
    )
