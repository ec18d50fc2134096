"""Checks that the shards of a run fit together, and adds up their scores.

    python main/merge_results.py data/results/RUN

Every image must be in exactly one mask file of this run, and in the scores of each evaluation that was begun.
Then `summary.json`, `per_image.csv` and the pictures of each are written. Shards from machines that share no
disk are merged by copying their `masks/` and `results/` into one folder first.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[1])

from config import MergeOptions
from main import cli


def main(options: MergeOptions) -> tuple[Path, dict]:
    """Checks the masks, then adds up every evaluation."""
    from main.merging import check_masks, evaluations, merge
    from main.skipped import counts

    n = check_masks(options.run_folder)
    left_out = counts(options.run_folder)["skipped"]
    print(f"masks: {n} images, each once" + (f", {left_out} of them skipped" if left_out else ""))
    found = evaluations(options.run_folder)
    if not found:
        print(
            "no evaluation was begun; run_perturbation_eval.py or run_segmentation_eval.py scores the masks"
        )
    rows: dict[str, dict[str, float]] = {}
    for folder in found:
        for variant, row in merge(options.run_folder, folder).items():
            rows.setdefault(variant, {}).update(row)
        print(f"added up: {cli.display_path(folder)}")
    return options.run_folder, rows


if __name__ == "__main__":
    cli.run_script(MergeOptions, main)
