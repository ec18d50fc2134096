"""Scores the masks of a run by segmentation: PA, mAP, mIoU, mF1 for every variant in its mask files.

    python main/segmentation_eval/run_segmentation_eval.py data/results/RUN

The run's images must have object masks (`--dataset-type imagenet|coco|voc|digits` when it was made). Writes
RUN/results/segmentation-<class>/{per_image.csv, summary.json, <variant>.png}.
"""

import sys
from pathlib import Path

sys.path[0] = sys.path[0] if __package__ else str(Path(__file__).parents[2])

from config import SegmentationOptions
from main import cli


def main(options: SegmentationOptions) -> tuple[Path, dict]:
    """Evaluates and prints the table."""
    from main.segmentation_eval.stage import score_run

    return score_run(options)


if __name__ == "__main__":
    cli.run_script(SegmentationOptions, main)
