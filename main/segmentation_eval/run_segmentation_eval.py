"""Score the masks of a run by segmentation: PA, mAP, mIoU, mF1 for every variant in its mask files.

    python main/segmentation_eval/run_segmentation_eval.py data/results/RUN

The run's images must have object masks (`--dataset-type imagenet|coco|voc|digits` when it was made). Writes
RUN/results/segmentation-<class>/{per_image.csv, summary.json, <variant>.png}.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.main.common import cli
from ltx.main.segmentation_eval.options import SegmentationOptions


@cli.script(SegmentationOptions)
def main(options: SegmentationOptions) -> tuple[Path, dict, dict]:
    """Evaluate and print the table."""
    from ltx.main.runs.skipped import counts
    from ltx.main.segmentation_eval.stage import evaluate_and_print

    return options.run_folder, evaluate_and_print(options), counts(options.run_folder)


if __name__ == "__main__":
    main()
