"""Tables as data, Markdown and LaTeX."""

import re

from ltx.main.perturbation_eval.metrics import METRICS
from ltx.main.report_page.collect import open_runs, read_results
from ltx.main.report_page.compare import compare
from ltx.main.report_page.definitions import DEFINITIONS, SHORT, definition
from ltx.main.report_page.markup import latex, markdown
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.rows import reference_of
from ltx.main.report_page.statistics import analyse
from ltx.main.report_page.tables import (
    Cell,
    Column,
    Table,
    sanity_table,
    score_table,
    signed,
)
from ltx.main.segmentation_eval.metrics import void_policies

OF_THE_OTHER = {"ahead": "behind", "level": "level", "behind": "ahead"}
NASTY = Table(
    "key", "100% of <b>it</b> & $x_1$",
    [Column("me|thod"), Column("POS", "↓")],
    [
        [Cell("a_b|c<script>"), Cell("1.50", 1.5, "1.00 to 2.00", "best", "ahead")],
        [Cell("new\nline #1 {x} ^~\\"), Cell("–", None, "", "best-single")],
    ],
    ["note *x*"],
)  # fmt: skip


def analysed(*runs):
    opened = open_runs(tuple(str(run) for run in runs))
    results = [result for run in opened for result in read_results(run)]
    comparison = compare(results, "perturbation", ReportOptions(runs=()))[0]
    return comparison, analyse(comparison, reference_of(comparison, None), 200, 0)


def column(table, name):
    place = [column.name for column in table.columns].index(name)
    return {row[0].note: row[place] for row in table.rows}


def test_best_is_bold_among_methods_alone(make_run):
    """Oracle and models with random weights take no prize; rows with one map tried have one of their own."""
    run = make_run(variants=("last", "best_pos", "other", "oracle", "last_randomised"), n_images=9)
    comparison, statistics = analysed(run)
    table = score_table("k", "t", comparison, statistics)
    assert [row[0].text for row in table.rows] == [
        "LTX (last of 25 steps)", "LTX (lowest POS of 25 steps)", "other", "true object mask",
    ]  # fmt: skip
    assert [cell.text for cell in column(table, "maps tried").values()] == ["1", "25", "1", "1"]
    singles = ["last", "other"]
    for name, higher in comparison.better.items():
        cells = column(table, name)
        if higher is None:
            assert not any(cell.emphasis for cell in cells.values())
            continue
        pick = max if higher else min
        best = pick(("last", "best_pos", "other"), key=lambda label: cells[label].value)
        assert [label for label, cell in cells.items() if cell.emphasis == "best"] == [best]
        single = pick(singles, key=lambda label: cells[label].value)
        underlined = [label for label, cell in cells.items() if cell.emphasis == "best-single"]
        assert underlined == ([] if single == best else [single])
        assert re.fullmatch(r"\d+\.\d\d to \d+\.\d\d", cells[best].small)
    assert all(any(words in note for note in table.notes) for words in ("lowest POS", "true object mask"))


def test_early_stop_is_named(make_run):
    comparison, statistics = analysed(make_run(variants=("pltx", "best_pos"), early_stop=True))
    notes = score_table("k", "t", comparison, statistics).notes
    assert any(note.startswith("Stopped early, as released: pLTX, LTX (lowest POS") for note in notes)


def test_marks_are_those_of_the_paired_difference(make_run):
    comparison, statistics = analysed(make_run(variants=("last", "other", "last_randomised")))
    table = score_table("k", "t", comparison, statistics)
    for name, higher in comparison.better.items():
        cells = column(table, name)
        assert not cells["last"].mark and not cells["last"].note
        if higher is None:
            assert not cells["other"].mark
            continue
        difference = statistics.differences["other"][name]
        assert cells["other"].mark == OF_THE_OTHER[difference.verdict]
        better = cells["last"].value - cells["other"].value
        better = better if higher else -better
        note = f"advantage of LTX (last of 25 steps): {signed(better)}, paired 95% interval "
        assert cells["other"].note.startswith(note)


def test_rows_are_named_for_people(make_run):
    run = make_run(variants=("pltx", "best_loss", "grad_cam", "mine"), recipe="ordered")
    comparison, _ = analysed(run)
    titles = ["pLTX", "LTX (ours, lowest loss of 25 steps)", "Grad-CAM", "mine"]
    assert [row.title for row in comparison.rows] == titles
    comparison, _ = analysed(f"A={run}")
    assert [row.title for row in comparison.rows] == [f"A: {title}" for title in titles]
    comparison, _ = analysed(f"B={make_run('one', variants=('last',))}")
    assert [row.title for row in comparison.rows] == ["B"]


def test_sanity_table_puts_both_together(make_run):
    runs = make_run("true", variants=("last", "grad")), make_run("random", variants=("grad_randomised",))
    comparison, statistics = analysed(*runs)
    table = sanity_table(comparison, statistics)
    marks = [cell.mark for cell in table.rows[1][1:] if cell.mark]
    verdicts = [d.verdict for d in statistics.losses["grad_randomised"].values()]
    assert marks == [OF_THE_OTHER[verdict] for verdict in verdicts] and len(marks) == 8
    assert not any(cell.mark for cell in table.rows[0]) and len(table.notes) == 1
    assert [row[0].note for row in sanity_table(comparison, statistics).rows] == ["grad", "grad_randomised"]
    assert [row[0].text for row in table.rows] == ["grad", "grad, random weights"]
    comparison, statistics = analysed(runs[0], f"drawn={runs[1]}")
    assert [row[0].note for row in sanity_table(comparison, statistics).rows] == ["grad", "drawn_randomised"]
    assert sanity_table(*analysed(runs[0])) is None


def test_sanity_table_names_what_did_not_change(make_run):
    runs = make_run("true", variants=("last",)), make_run("random", variants=("last_randomised",))
    notes = sanity_table(*analysed(*runs)).notes
    assert notes[-1].startswith("Not changed at all: LTX (last of 25 steps), random weights.")


def test_numbers():
    assert [signed(x) for x in (1.234, -1.236, -0.001, 0.0)] == ["+1.23", "-1.24", "0.00", "0.00"]


def test_markdown_cannot_be_broken():
    text = markdown("A <title>", ["lead | line"], [NASTY])
    assert "<" not in text
    lines = text.splitlines()
    assert lines[0] == "# A &lt;title&gt;"
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4 and all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert rows[0] == r"| me\|thod | POS ↓ |" and rows[1] == "|---|---:|"
    assert rows[2] == r"| a\_b\|c&lt;script&gt; | **1.50** (1.00 to 2.00) ▲ |"
    assert rows[3].endswith("| _–_ |") and r"new line \#1 {x} ^~\\" in rows[3]


def test_latex_cannot_be_broken():
    text = latex([NASTY])
    assert r"100\% of \textless{}b\textgreater{}it\textless{}/b\textgreater{} \& \$x\_1\$" in text
    assert r"me\textbar{}thod & POS $\downarrow$ \\" in text
    assert r"a\_b\textbar{}c\textless{}script\textgreater{} & \textbf{1.50} {\scriptsize" in text
    assert r"(1.00 to 2.00) $\blacktriangle$}" in text
    assert (
        r"new line \#1 \{x\} \textasciicircum{}\textasciitilde{}\textbackslash{} & \underline{--} \\" in text
    )
    assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 1
    assert "1.00 to 2.00" not in latex([NASTY], intervals=False)
    plain = re.sub(r"\\[\\{}]", "", text)
    assert plain.count("{") == plain.count("}")


def test_every_metric_has_a_definition():
    names = [metric.name for metric in METRICS]
    names += [metric.name for policy in void_policies(has_void=True) for metric in policy.named_metrics]
    assert all(definition(name) for name in names)
    assert set(SHORT) == {*DEFINITIONS, "maps tried"}
    assert set(DEFINITIONS) <= set(names)
    assert definition("PA_void_ignored").startswith(definition("PA")) and definition("x") == ""
