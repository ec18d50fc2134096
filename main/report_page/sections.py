"""The page's sections: one comparison each, with its tables, figures and pictures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ltx.config import UserError
from ltx.main.report_page.collect import PERTURBATION
from ltx.main.report_page.figures import curve_panels, line_styles, scatter_panels
from ltx.main.report_page.galleries import (
    Gallery,
    GalleryMaker,
    GalleryRow,
    Picture,
    View,
    most_different,
    sheets,
    spread,
)
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.rows import Comparison, Row, find_row, reference_of
from ltx.main.report_page.statistics import AHEAD, BEHIND, Statistics, analyse
from ltx.main.report_page.tables import Table, sanity_table, score_table

_FEW_IMAGES = 30
# Default metrics of the pictures: fine-grained ones first, POS moves in steps of 5.
_DIFFER_BY = ("DEL", "mF1", "POS")
_TITLES = {"perturbation": "Perturbation", "segmentation": "Segmentation"}


@dataclass
class Section:
    """One comparison on the page.

    Attributes:
        key: part of ids.
        title: heading.
        lead: sentences under it.
        tables: scores, differences, ...
        legend: line of each row in the curves, (label, style).
        curves, scatter: (metric, SVG).
        reference, rival: titles of the rows that the scatter compares.
        verdict: sentences on how the reference does.
        typical: an image of middling difficulty under the reference's map, and its words.
        views: images that a press opens, by key.
        gallery: the same images, all rows.
        different: title and gallery of the images that differ most.
        differ_by: the metric that chose them.
        sheets: of segmentation.
    """

    key: str
    title: str
    lead: list[str]
    tables: list[Table]
    legend: list[tuple[str, dict]] = field(default_factory=list)
    curves: list[tuple[str, str]] = field(default_factory=list)
    scatter: list[tuple[str, str]] = field(default_factory=list)
    reference: str = ""
    rival: str = ""
    gallery: Gallery | None = None
    different: list[tuple[str, Gallery]] = field(default_factory=list)
    differ_by: str = ""
    sheets: list[Picture] = field(default_factory=list)
    verdict: str = ""
    typical: GalleryRow | None = None
    views: dict[str, View] = field(default_factory=dict)


def make_section(
    comparisons: Sequence[Comparison], options: ReportOptions, galleries: bool
) -> tuple[Section, dict[str, dict[str, float]]]:
    """Return the section of a protocol.

    Args:
        comparisons: the main one, then those with other fills.
        options: reference, rival, resamples, pictures.
        galleries: show maps.

    Returns:
        The section, and every figure of the main comparison by row and metric.

    Raises:
        UserError: unknown reference, rival or metric; maps that are no longer there.
    """
    main, protocol = comparisons[0], comparisons[0].protocol
    reference = reference_of(main, options.reference)
    statistics = analyse(main, reference, options.resamples, options.seed)
    title = _TITLES[protocol]
    tables = [score_table(protocol, f"{title}: {_setting(main)}", main, statistics)]
    sanity = sanity_table(main, statistics)
    tables += [sanity] if sanity else []
    tables += [_other_fill(other, options) for other in comparisons[1:]]
    section = Section(protocol, title, _lead(main, statistics), [table for table in tables if table.rows])
    section.verdict = _verdict(main, statistics)
    rows = [row for row in main.rows if not row.randomised]
    styles = line_styles(rows, statistics.reference)
    section.legend = [(row.title, styles[row.label]) for row in rows]
    section.curves = curve_panels(main, statistics, styles)
    rival, metric, maker = _rival(main, statistics, options), _metric(main, options), None
    if galleries:
        maker = GalleryMaker(main, statistics, options)
        _add_galleries(section, maker, rival, metric, options)
    if rival is not None:
        section.reference, section.rival = reference.title, rival.title
        key = maker.key if maker else lambda _: ""
        section.scatter = scatter_panels(main, reference, rival, key)
    if protocol != PERTURBATION:
        section.sheets = sheets(main)
    means = {
        label: {name: figure.mean for name, figure in by_metric.items() if figure.mean is not None}
        for label, by_metric in statistics.figures.items()
    }
    return section, means


def _other_fill(comparison: Comparison, options: ReportOptions) -> Table:
    statistics = analyse(
        comparison, reference_of(comparison, options.reference), options.resamples, options.seed
    )
    key = f"{comparison.protocol}-{comparison.fill}"
    return score_table(key, f"The same with another fill: {_setting(comparison)}", comparison, statistics)


def _setting(comparison: Comparison) -> str:
    fill = "" if comparison.fill is None else f", fill {comparison.fill}"
    return f"{len(comparison.images)} images, {comparison.scored_class} class{fill}"


def _lead(comparison: Comparison, statistics: Statistics) -> list[str]:
    row, n = comparison.row(statistics.reference), len(comparison.images)
    scored = "scored" if comparison.protocol == PERTURBATION else "explained"
    fill = "" if comparison.fill is None else f" What is removed is filled: {comparison.fill}."
    lead = [
        f"{n} images, the same for every row. Explainee: {row.run.record.explainee['name']}. "
        f"Class {scored}: {comparison.scored_class}.{fill} "
        "Small figures are 95% bootstrap intervals over the images "
        f"({statistics.n_resamples} resamples, seed {statistics.seed}, percentiles)."
    ]
    if comparison.left_out:
        lead.append(
            f"{comparison.left_out} images that some run has are left out (not in all runs, or excluded)."
        )
    if n < _FEW_IMAGES:
        lead.append(f"{n} images are few: such intervals are rough.")
    return lead


def _verdict(comparison: Comparison, statistics: Statistics) -> str:
    """Sentences on how the reference does among the methods; nothing where nothing ranks or it is alone."""
    reference = comparison.row(statistics.reference)
    others = [row for row in comparison.rows if not (row is reference or row.randomised or row.oracle)]
    wins = []
    for name in (name for name, higher in comparison.better.items() if higher is not None):
        found = [statistics.differences[row.label][name] for row in others
                 if name in statistics.differences[row.label]]  # fmt: skip
        if found:
            wins.append((name, all(one.value >= 0 for one in found), [one.verdict for one in found]))
    if not wins:
        return ""
    best = [name for name, is_best, _ in wins if is_best]
    counts = Counter(verdict for _, _, verdicts in wins for verdict in verdicts)
    named = f" ({', '.join(best)})" if best else ""
    return (
        f"{reference.title} has the best figure of {len(others) + 1} methods in {len(best)} of {len(wins)} "
        f"columns{named}. Compared image by image, it is clearly better in {counts[AHEAD]} of "
        f"{counts.total()} figures of theirs and clearly worse in {counts[BEHIND]} (95% intervals)."
    )


def _rival(comparison: Comparison, statistics: Statistics, options: ReportOptions) -> Row | None:
    """Return the row of `--rival`, by default the first of another run, or else of the same."""
    if options.rival is not None:
        return find_row(comparison.rows, options.rival, "--rival")
    reference = comparison.row(statistics.reference)
    rows = [row for row in comparison.rows if row is not reference and not row.randomised and not row.oracle]
    return min(rows, key=lambda row: row.run is reference.run, default=None)


def _add_galleries(
    section: Section, maker: GalleryMaker, rival: Row | None, metric: str | None, options: ReportOptions
) -> None:
    comparison, reference, n = maker.comparison, maker.rows[0], len(maker.comparison.images)
    chosen, sides = spread(n, options.gallery_images), []
    if rival is not None and metric is not None and all(metric in row.measures for row in (reference, rival)):
        own, other = (row.measures[metric].per_image for row in (reference, rival))
        ahead, behind = most_different(own, other, comparison.better[metric], options.gallery_images)
        sides = [(reference, rival, ahead), (rival, reference, behind)]
    wanted = [*chosen, *(i for _, _, some in sides for i in some), *spread(n, options.opened_images)]
    views = {i: maker.view(i, metric) for i in list(dict.fromkeys(wanted))[: options.opened_images]}
    maker.opened = {i for i, view in views.items() if view is not None}
    section.views = {maker.key(i): view for i, view in views.items() if view is not None}
    section.gallery, section.differ_by = maker.gallery(chosen, metric), metric or ""
    section.typical = maker.typical(_middling(reference, metric))
    section.different = [
        (f"{one.title} better than {other.title}", maker.gallery(some, metric))
        for one, other, some in sides
        if some
    ]


def _middling(row: Row, metric: str | None) -> int:
    """Return the image on which a row's figure is the median one; the first where there is no figure."""
    values = row.measures[metric].per_image if metric in row.measures else np.zeros(1)
    order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]
    return int(order[(len(order) - 1) // 2]) if len(order) else 0


def _metric(comparison: Comparison, options: ReportOptions) -> str | None:
    """Return the metric that images are compared by."""
    ranking = [name for name, higher in comparison.better.items() if higher is not None]
    if options.differ_by is not None and options.differ_by not in ranking:
        raise UserError(
            f"--differ-by {options.differ_by}: no such metric in {comparison.protocol}; there are "
            f"{', '.join(ranking)}"
        )
    wanted = (options.differ_by, *_DIFFER_BY)
    return next((name for name in wanted if name in ranking), ranking[0] if ranking else None)
