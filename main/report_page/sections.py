"""The page's sections: one comparison each, with its tables, figures and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ltx.config import UserError
from ltx.main.report_page.collect import PERTURBATION
from ltx.main.report_page.figures import curve_panels, line_styles, scatter_panels
from ltx.main.report_page.galleries import Gallery, GalleryMaker, Picture, most_different, sheets, spread
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.rows import Comparison, Row, find_row, reference_of
from ltx.main.report_page.statistics import Statistics, analyse
from ltx.main.report_page.tables import Table, difference_table, sanity_table, score_table

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
        reference, rival: labels of the rows that the scatter compares.
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
    if len(main.rows) > 1:
        tables.append(difference_table(f"{protocol}-differences", main, statistics))
    sanity = sanity_table(main, statistics)
    tables += [sanity] if sanity else []
    tables += [_other_fill(other, options) for other in comparisons[1:]]
    section = Section(protocol, title, _lead(main, statistics), [table for table in tables if table.rows])
    _add_figures(section, main, statistics, options)
    if galleries:
        _add_galleries(section, main, statistics, options)
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


def _add_figures(
    section: Section, comparison: Comparison, statistics: Statistics, options: ReportOptions
) -> None:
    rows = [row for row in comparison.rows if not row.randomised]
    styles = line_styles(rows, statistics.reference)
    section.legend = list(styles.items())
    section.curves = curve_panels(comparison, statistics, styles)
    rival = _rival(comparison, statistics, options)
    section.reference = statistics.reference
    if rival is not None:
        section.rival = rival.label
        section.scatter = scatter_panels(comparison, comparison.row(statistics.reference), rival)


def _rival(comparison: Comparison, statistics: Statistics, options: ReportOptions) -> Row | None:
    """Return the row of `--rival`, by default the first of another run, or else of the same."""
    if options.rival is not None:
        return find_row(comparison.rows, options.rival, "--rival")
    reference = comparison.row(statistics.reference)
    rows = [row for row in comparison.rows if row is not reference and not row.randomised and not row.oracle]
    return min(rows, key=lambda row: row.run is reference.run, default=None)


def _add_galleries(
    section: Section, comparison: Comparison, statistics: Statistics, options: ReportOptions
) -> None:
    maker, metric = GalleryMaker(comparison, statistics, options), _metric(comparison, options)
    chosen = spread(len(comparison.images), options.gallery_images)
    section.gallery = maker.gallery(chosen, metric, lambda i: "")
    section.differ_by = metric or ""
    if metric is None or not section.rival:
        return
    both = [comparison.row(label) for label in (section.reference, section.rival)]
    if any(metric not in row.measures for row in both):
        return
    own, other = (row.measures[metric].per_image for row in both)
    sides = most_different(own, other, comparison.better[metric], options.gallery_images)
    for (ahead, behind), chosen in ((both, sides[0]), (both[::-1], sides[1])):
        if chosen:
            section.different.append(
                (f"{ahead.label} better than {behind.label}", maker.gallery(chosen, metric, lambda i: ""))
            )


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
