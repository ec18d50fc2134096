"""Tables as Markdown and LaTeX."""

import re
from collections.abc import Sequence

from ltx.main.report_page.tables import MARKS, Cell, Column, Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
_LATEX_SYMBOLS = {
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$",
    "·": r"$\cdot$", "–": "--", "−": r"$-$",
}  # fmt: skip


def markdown(title: str, intro: Sequence[str], tables: Sequence[Table]) -> str:
    """A Markdown document of all tables."""
    parts = [f"# {_md(title)}", *map(_md, intro)]
    for table in tables:
        head = "| " + " | ".join(_md(_heading(column)) for column in table.columns) + " |"
        rule = "|" + "|".join(["---"] + ["---:"] * (len(table.columns) - 1)) + "|"
        rows = ["| " + " | ".join(map(_md_cell, row)) + " |" for row in table.rows]
        parts += [f"## {_md(table.title)}", "\n".join([head, rule, *rows]), *map(_md, table.notes)]
    return "\n\n".join(parts) + "\n"


def latex(tables: Sequence[Table], intervals: bool = True) -> str:
    """LaTeX tables, for `\\usepackage{booktabs,amssymb,graphicx}`."""
    parts = ["% Needs \\usepackage{booktabs,amssymb,graphicx}"]
    for table in tables:
        head = " & ".join(_tex(_heading(column)) for column in table.columns)
        rows = [" & ".join(_tex_cell(cell, intervals) for cell in row) + r" \\" for row in table.rows]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}[t]",
                    r"\centering",
                    rf"\caption{{{_tex(table.title)}. {' '.join(map(_tex, table.notes))}}}",
                    rf"\label{{tab:{table.key}}}",
                    r"\resizebox{\linewidth}{!}{%",
                    rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
                    r"\toprule",
                    head + r" \\",
                    r"\midrule",
                    *rows,
                    r"\bottomrule",
                    r"\end{tabular}}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _heading(column: Column) -> str:
    return f"{column.name} {column.arrow}".strip()


def _further(cell: Cell, intervals: bool = True) -> list[str]:
    """The marks after a cell's text: its interval and its arrow."""
    mark = MARKS.get(cell.mark)
    return [part for part in (intervals and cell.small and f"({cell.small})", mark) if part]


def _md_cell(cell: Cell) -> str:
    text = _md(cell.text)
    if cell.emphasis == "best":
        text = f"**{text}**"
    elif cell.emphasis == "best-single":
        text = f"_{text}_"
    return " ".join([text, *map(_md, _further(cell))])


def _md(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no end of a cell or line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text)


def _tex_cell(cell: Cell, intervals: bool) -> str:
    text = _tex(cell.text)
    if cell.emphasis == "best":
        text = rf"\textbf{{{text}}}"
    elif cell.emphasis == "best-single":
        text = rf"\underline{{{text}}}"
    further = " ".join(map(_tex, _further(cell, intervals)))
    return rf"{text} {{\scriptsize {further}}}" if further else text


def _tex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    symbols = _LATEX | _LATEX_SYMBOLS
    return "".join(symbols.get(character, character) for character in " ".join(text.split()))
