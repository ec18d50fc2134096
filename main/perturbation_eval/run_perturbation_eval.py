"""Scores the masks of a run: POS, NEG, DEL, INS, ADP, PIC for every variant in its mask files.

    python main/perturbation_eval/run_perturbation_eval.py data/results/RUN

Writes RUN/results/perturbation-<fill>-<class>/{per_image.csv, summary.json, curves.png}.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[2])

from config import PerturbationOptions
from main import cli, results
from main.perturbation_eval.evaluator import evaluate


def main(options: PerturbationOptions) -> tuple[Path, dict]:
    """Evaluates and prints the table."""
    rows = evaluate(options)
    if rows:
        print(results.format_table(rows, f"perturbation metrics of {cli.display_path(options.run_folder)}"))
    return options.run_folder, results.means_of(rows)


if __name__ == "__main__":
    cli.run_script(PerturbationOptions, main)
