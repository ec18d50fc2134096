"""The page itself: one file with its style, script, tables, figures and pictures inside."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ltx.main.common.drawing import PLAIN
from ltx.main.report_page.definitions import definition
from ltx.main.report_page.provenance import Provenance
from ltx.main.report_page.sections import Section
from ltx.main.report_page.tables import MARKS

_FOLDER = Path(__file__).parent / "template"


def render(title: str, sections: Sequence[Section], runs: Sequence[Provenance], output: Path) -> str:
    """The page as HTML; every name from outside is escaped.

    Args:
        title: heading.
        sections: comparisons.
        runs: what made them.
        output: the page's place, after which its tables are named.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["definition"] = definition
    # The figures are our own SVG, in which matplotlib has escaped what it was given.
    environment.filters["svg"] = Markup
    inline = {name: Markup((_FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js")}
    metrics = dict.fromkeys(
        column.name for section in sections for table in section.tables for column in table.columns
    )
    return environment.get_template("page.html").render(
        title=title, sections=sections, runs=runs, marks=MARKS,
        style=inline["page.css"], script=inline["page.js"],
        colours=(255 * PLAIN.colours(np.linspace(0, 1, 256))).round().astype(int).ravel().tolist(),
        alpha=PLAIN.alpha,
        views={key: asdict(view) for section in sections for key, view in section.views.items()},
        metrics=[name for name in metrics if definition(name)],
        beside=[output.with_suffix(suffix).name for suffix in (".md", ".tex")],
    )  # fmt: skip
