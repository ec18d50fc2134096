"""Puts the results of any number of runs into one page, and its tables into Markdown and LaTeX.

    python main/report.py data/results/RUN data/results/OTHER --output report.html
    python main/report.py released=data/results/RUN recipe=data/results/OTHER --reference recipe/last

The runs' masks must have been scored (main/perturbation_eval, main/segmentation_eval). The page needs no
network and no other file.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[1])

from config import ReportOptions
from main import cli


def main(options: ReportOptions) -> tuple[Path, dict]:
    """Writes the page and says where it lies."""
    from main.report_page.report_run import make_report

    figures = make_report(options)
    print(f"report: {cli.display_path(options.output)}")
    for suffix in (".md", ".tex"):
        print(f"tables: {cli.display_path(options.output.with_suffix(suffix))}")
    return options.output, figures


if __name__ == "__main__":
    cli.run_script(ReportOptions, main)
