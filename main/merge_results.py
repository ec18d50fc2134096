"""Checks that the shards of a run fit together, and adds up their scores.

    python main/merge_results.py data/results/RUN

Every image must be in exactly one mask file of this run, and in the scores of each evaluation that was begun.
Then `summary.json`, `per_image.csv` and the pictures of each are written. Shards from machines that share no
disk are merged by copying their `masks/` and `results/` into one folder first.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))
from dataclasses import MISSING, dataclass
from pathlib import Path

from ltx.main.common import cli, progress
from ltx.main.common.options import option


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """`main/merge_results.py`: shards of a run, checked and added up."""

    run_folder: Path = option(MISSING, "folder of a run that made masks", flag="RUN_FOLDER")


@cli.script(MergeOptions)
def main(options: MergeOptions) -> tuple[Path, dict, dict]:
    """Checks the masks, then adds up every evaluation."""
    from ltx.main.merging import check_masks, evaluations, merge
    from ltx.main.runs.skipped import counts

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
        print(f"added up: {progress.display_path(folder)}")
    return options.run_folder, rows, counts(options.run_folder)


if __name__ == "__main__":
    main()
