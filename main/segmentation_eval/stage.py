"""What both stages do: masks of an image set with object masks, then their scores."""

from pathlib import Path

from ltx import config
from ltx.datasets.imagenet import check_labels
from ltx.main.common import cli, devices, progress
from ltx.main.runs import tables
from ltx.main.runs.build_images import open_segmentation_set
from ltx.main.runs.build_models import load_explainee
from ltx.main.runs.skipped import counts
from ltx.main.seg_classification.ltx_run import default_run_name, run_ltx
from ltx.main.segmentation_eval.evaluator import evaluate
from ltx.main.segmentation_eval.options import SegmentationOptions, SegStageBOptions


def run_stage(options: SegStageBOptions) -> tuple[Path, dict, dict]:
    """Makes the masks and, unless told not to, evaluates them.

    Returns:
        The run folder, the metrics by variant (empty while other shards are at work), the images left out.

    Raises:
        UserError: no image set, no weights, another run in the folder, ...
    """
    device = devices.pick_device(options.device)
    images = open_segmentation_set(options)
    explainee = load_explainee(options).to(device)
    check_labels(images, explainee.num_classes)
    name = options.run_name or default_run_name(options, images.describe()["kind"])
    folder = (options.default_root_dir or config.RESULTS) / name
    run_ltx(options, explainee, images, folder, device)
    print(f"masks: {progress.display_path(folder)}")
    if not options.evaluate:
        return folder, {}, counts(folder)
    shared = cli.shared(options, SegmentationOptions, leave_out=("exclude_manifest", "segmentation_root"))
    return score_run(SegmentationOptions(run_folder=folder, **shared))


def score_run(options: SegmentationOptions) -> tuple[Path, dict, dict]:
    """Evaluates the masks of a run and prints the table.

    Returns:
        The run folder, the metrics by variant, the numbers of images left out.

    Raises:
        UserError: see `evaluator.evaluate`.
    """
    rows = evaluate(options)
    if rows:
        title = f"segmentation metrics of {progress.display_path(options.run_folder)}"
        print(tables.format_table(rows, title, tables.candidates_of(options.run_folder)))
    return options.run_folder, tables.means_of(rows), counts(options.run_folder)
