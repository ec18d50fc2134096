"""The report: the page and the tables beside it, from run folders."""

from pathlib import Path

from ltx.config import UserError
from ltx.main.report_page.collect import PERTURBATION, SEGMENTATION, Result, open_runs, read_results
from ltx.main.report_page.compare import compare
from ltx.main.report_page.markup import latex, markdown
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.page import render
from ltx.main.report_page.provenance import provenance_of
from ltx.main.report_page.sections import make_section
from ltx.models.files import replace_file


def make_report(options: ReportOptions) -> dict[str, dict[str, float]]:
    """Write `options.output` and, beside it, the tables as .md and .tex.

    Returns:
        Every figure by row and metric.

    Raises:
        UserError: runs that are missing, have no results, or cannot stand in one table; an unwritable output.
    """
    _check(options)
    runs = open_runs(options.runs)
    results = {run.name: read_results(run) for run in runs}
    flat = [result for some in results.values() for result in some]
    sections, figures = [], {}
    for protocol in (PERTURBATION, SEGMENTATION):
        comparisons = compare(flat, protocol, options)
        if comparisons:
            section, means = make_section(comparisons, options, galleries=not sections)
            sections.append(section)
            figures |= {label: figures.get(label, {}) | row for label, row in means.items()}
    title = options.title or f"Saliency maps of {_explainees(flat)}"
    tables = [table for section in sections for table in section.tables]
    lead = [sentence for section in sections for sentence in section.lead]
    made = {
        options.output: render(
            title, sections, [provenance_of(run, results[run.name]) for run in runs], options.output
        ),
        options.output.with_suffix(".md"): markdown(title, lead, tables),
        options.output.with_suffix(".tex"): latex(tables, options.latex_intervals),
    }
    for path, text in made.items():
        _write(path, text)
    return figures


def _explainees(results: list[Result]) -> str:
    return ", ".join(dict.fromkeys(result.run.record.explainee["name"] for result in results))


def _check(options: ReportOptions) -> None:
    """Raise `UserError` if a number or the output's name is wrong, before anything is read."""
    if options.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {options.output}: wanted the name of a page, ending in .html")
    if options.output.is_dir():
        raise UserError(f"--output {options.output} is a folder")
    for name, least in (("resamples", 100), ("gallery_images", 1), ("opened_images", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}")


def _write(path: Path, text: str) -> None:
    replace_file(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
