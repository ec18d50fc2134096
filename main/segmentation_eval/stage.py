"""The segmentation stages: LTX masks of an image set with object masks, and their scores."""

from pathlib import Path

from ltx.main.common.progress import display_path
from ltx.main.runs import tables
from ltx.main.seg_classification.ltx_run import run_ltx
from ltx.main.segmentation_eval.evaluator import evaluate
from ltx.main.segmentation_eval.options import SegmentationOptions, SegStageBOptions


def run_stage(options: SegStageBOptions) -> tuple[Path, dict, dict]:
    """Make the masks and, unless told not to, score them; see `run_ltx`."""
    return run_ltx(options, SegmentationOptions, evaluate_and_print)


def evaluate_and_print(options: SegmentationOptions) -> dict[str, dict[str, float]]:
    """Evaluate the masks of a run, print the table and return means by variant.

    Raises:
        UserError: see `evaluator.evaluate`.
    """
    rows = evaluate(options)
    if rows:
        title = f"segmentation metrics of {display_path(options.run_folder)}"
        print(tables.format_table(rows, title, tables.candidates_of(options.run_folder)))
    return tables.means_of(rows)
