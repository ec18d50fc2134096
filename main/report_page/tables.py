"""Tables of a comparison, as plain data for HTML, Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ltx.main.report_page.definitions import SHORT, VOID_SUFFIX, definition
from ltx.main.report_page.rows import Comparison, Row, true_row
from ltx.main.report_page.statistics import AHEAD, BEHIND, SAME, Difference, Statistics
from ltx.main.runs.tables import arrow

NOTHING = "–"
MARKS = {AHEAD: "▲", SAME: "·", BEHIND: "▼"}
_OF_THE_OTHER = {AHEAD: BEHIND, SAME: SAME, BEHIND: AHEAD}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: content.
        value: sort key; None sorts last.
        small: smaller text below the content, an interval.
        emphasis: `best` of its column, `best-single` of the rows with one map tried, or nothing.
        mark: `ahead`, `level`, `behind`, `reference` or nothing.
        note: further words, shown on demand.
    """

    text: str
    value: float | None = None
    small: str = ""
    emphasis: str = ""
    mark: str = ""
    note: str = ""


@dataclass(frozen=True)
class Column:
    """Heading of a column: its name, the better direction, an explanation and the same in a few words."""

    name: str
    arrow: str = ""
    note: str = ""
    short: str = ""


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
    return [
        Column(name, arrow(higher), definition(name), SHORT.get(name.removesuffix(VOID_SUFFIX), ""))
        for name, higher in better.items()
    ]


def score_table(
    key: str, title: str, comparison: Comparison, statistics: Statistics, rows: Sequence[Row] | None = None
) -> Table:
    """Return all rows by all metrics: best in bold, intervals, marks against the reference, maps tried."""
    rows = [row for row in comparison.rows if not row.randomised] if rows is None else rows
    ranked = [row for row in rows if not row.oracle and not row.randomised]
    best = _best(ranked, comparison, statistics)
    best_single = _best([row for row in ranked if row.candidates == 1], comparison, statistics)
    made = []
    for row in rows:
        cells = [_label(row, statistics), Cell(str(row.candidates), row.candidates)]
        for name in comparison.better:
            difference = statistics.differences.get(row.label, {}).get(name)
            cell = _marked(_score(statistics, row, name), difference, comparison.row(statistics.reference))
            eligible = row in ranked
            if eligible and cell.text == best.get(name):
                cell = replace(cell, emphasis="best")
            elif eligible and row.candidates == 1 and cell.text == best_single.get(name):
                cell = replace(cell, emphasis="best-single")
            cells.append(cell)
        made.append(cells)
    head = [
        Column("method"),
        Column("maps tried", "", "number of maps of each image that this one was chosen from",
               SHORT["maps tried"]),
    ]  # fmt: skip
    notes = _notes(comparison, rows, statistics)
    return Table(key, title, head + _columns(comparison.better), made, notes)


def _label(row: Row, statistics: Statistics) -> Cell:
    return Cell(row.title, mark="reference" if row.label == statistics.reference else "", note=row.label)


def _marked(cell: Cell, difference: Difference | None, reference: Row) -> Cell:
    """Return a cell with the reference's advantage, marked by its paired interval."""
    if difference is None:
        return cell
    note = f"advantage of {reference.title}: {signed(difference.value)}"
    if difference.low is not None and difference.high is not None:
        note += f", paired 95% interval {signed(difference.low)} to {signed(difference.high)}"
    return replace(cell, mark=_OF_THE_OTHER[difference.verdict], note=note)


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


def _notes(comparison: Comparison, rows: Sequence[Row], statistics: Statistics) -> list[str]:
    notes = []
    if len(rows) > 1:
        reference = comparison.row(statistics.reference).title
        notes.append(
            f"▲ better and ▼ worse than {reference}: the 95% interval of the difference, paired by image, "
            "excludes zero; · level: it does not. With many comparisons, one in twenty of the truly level "
            "ones is marked by chance."
        )
    if any(row.candidates > 1 for row in rows):
        notes.append(
            "Rows with more than one map tried chose theirs among several of the same image: the best of all "
            "rows is bold, the best of those with a single map underlined where it is another. The lowest "
            "POS chose by POS itself, which is then reported; the lowest loss by the training loss."
        )
    if any(row.oracle for row in rows):
        notes.append("The true object mask is no method; it is never bold.")
    stopped = [row.title for row in rows if row.run.record.early_stop]
    if stopped:
        notes.append(f"Stopped early, as released: {', '.join(stopped)}.")
    return notes


def sanity_table(comparison: Comparison, statistics: Statistics) -> Table | None:
    """Return rows of models with random weights below those of the true model; None if there are none."""
    made, unchanged = [], []
    for row in comparison.rows:
        if not row.randomised:
            continue
        true = true_row(comparison, row)
        differences = {} if true is None else statistics.losses[row.label]
        if true is not None:
            made.append(
                [Cell(true.title, note=true.label)]
                + [_score(statistics, true, name) for name in comparison.better]
            )
            unchanged += [row.title] if _equal(true, row) else []
        cells = [(name, _score(statistics, row, name)) for name in comparison.better]
        made.append(
            [_label(row, statistics)]
            + [_marked(c, differences[name], true) if name in differences else c for name, c in cells]
        )
    if not made:
        return None
    notes = [
        "A map that depends on the model must lose its score when the model's weights are drawn anew "
        "(Adebayo et al. 2018); the true model scores both. ▼: they are worse than the true model's by the "
        "paired 95% interval, ▲: better, ·: level."
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
