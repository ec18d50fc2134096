"""Write the results of any number of runs as one page, and its tables as Markdown and LaTeX.

    python main/report.py data/results/RUN data/results/OTHER --output report.html
    python main/report.py released=data/results/RUN recipe=data/results/OTHER --reference recipe/last

The runs' masks must have been scored (main/perturbation_eval, main/segmentation_eval). The page needs no
network and no other file.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

from ltx.main.common import cli, progress
from ltx.main.report_page.options import ReportOptions


@cli.script(ReportOptions)
def main(options: ReportOptions) -> tuple[Path, dict]:
    """Write the page and print its path."""
    from ltx.main.report_page.report_run import make_report

    figures = make_report(options)
    print(f"report: {progress.display_path(options.output)}")
    for suffix in (".md", ".tex"):
        print(f"tables: {progress.display_path(options.output.with_suffix(suffix))}")
    return options.output, figures


if __name__ == "__main__":
    main()
