"""Score the masks of a run by perturbation, every variant in its mask files.

    python main/perturbation_eval/run_perturbation_eval.py data/results/RUN --metrics all

fast: POS, NEG, DEL, INS, ADP, PIC, ADP_minmax, PIC_minmax, mask_area, gini. all: also RISE_deletion,
RISE_insertion, AIC, SIC. Each fill, class and choice of metrics has its own folder,
RUN/results/perturbation-<settings>/{per_image.csv, summary.json, curves.png}.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.main.common import cli
from ltx.main.perturbation_eval.options import PerturbationOptions


@cli.script(PerturbationOptions)
def main(options: PerturbationOptions) -> tuple[Path, dict, dict]:
    """Evaluate and print the table."""
    from ltx.main.perturbation_eval.evaluator import evaluate_and_print
    from ltx.main.runs.skipped import counts

    return options.run_folder, evaluate_and_print(options), counts(options.run_folder)


if __name__ == "__main__":
    main()
