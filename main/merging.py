"""Whether the shards of a run fit together: each image once in the mask files and once in the scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltx.config import UserError
from ltx.main.common import cli
from ltx.main.perturbation_eval import evaluator as perturbation
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.runs import evaluation, tables
from ltx.main.runs.files import read_json
from ltx.main.runs.mask_files import read_unit, unit_files, unit_path, units
from ltx.main.runs.run_folder import check_same_run, read_mask_run
from ltx.main.runs.run_record import EvaluationRecord, check
from ltx.main.runs.skipped import write_lists
from ltx.main.segmentation_eval import evaluator as segmentation
from ltx.main.segmentation_eval.options import SegmentationOptions

_EVALUATORS = {
    perturbation.PROTOCOL: (PerturbationOptions, perturbation.evaluate),
    segmentation.PROTOCOL: (SegmentationOptions, segmentation.evaluate),
}


def check_masks(run_folder: Path) -> int:
    """Number of images of a run, each of which is in exactly one of its mask files, or skipped by one.

    Writes the list of those that were skipped.

    Raises:
        UserError: a missing shard, overlapping ones, an index out of range, a file of another run.
    """
    run = read_mask_run(run_folder)
    n = run["n_images"]
    owner: dict[int, Path] = {}
    for path in unit_files(run_folder):
        unit = read_unit(path)
        check_same_run(unit.attributes.get("run_hash"), run["hash"], path)
        _claim([*unit.index, *unit.skipped], path, n, owner)
    _nothing_missing(owner, n, run, run_folder)
    write_lists(run_folder)
    return n


def _claim(index: Sequence[int], path: Path, n: int, owner: dict[int, Path]) -> None:
    """Notes that a file has these images; rows of one image in one file are its classes."""
    for image in sorted({int(i) for i in index}):
        if not 0 <= image < n:
            raise UserError(f"{path} holds image {image}, but the run has images 0 ... {n - 1}")
        if image in owner:
            raise UserError(
                f"image {image} is in both {owner[image]} and {path}: the shards overlap; remove one"
            )
        owner[image] = path


def _nothing_missing(owner: dict[int, Path], n: int, run: dict, run_folder: Path) -> None:
    missing = sorted(set(range(n)) - owner.keys())
    if not missing:
        return
    files = [
        unit_path(run_folder, unit).name for unit in units(n, run.get("unit_size", n)) if unit[0] in missing
    ]
    names = f" (files {', '.join(files[:3])}{', ...' if len(files) > 3 else ''})" if files else ""
    raise UserError(
        f"{len(missing)} of {n} images have no mask, from image {missing[0]} on{names}: a shard is missing "
        "or still at work; run its command again"
    )


def evaluations(run_folder: Path) -> list[Path]:
    """Folders of the evaluations of a run that were begun, in order."""
    return sorted(path.parent for path in (Path(run_folder) / "results").glob(f"*/{evaluation.OPTIONS_FILE}"))


def _check_scores(folder: Path, run_folder: Path, n_images: int) -> None:
    """Raise `UserError` unless the parts of an evaluation score the run's maps, each once."""
    owner: dict[int, Path] = {}
    for path in sorted((folder / "parts").glob("*.npz")):
        _claim(evaluation.read_part(path)["index"], path, n_images, owner)
    for file in unit_files(run_folder):
        index = read_unit(file).index
        for path, span in evaluation.parts_of(folder, file).items():
            if not path.is_file():
                raise UserError(
                    f"{folder} has no scores of {file.name}: an evaluation shard is missing or still at "
                    "work; run its command again"
                )
            part = evaluation.read_part(path)
            wanted = index[np.isin(index, span) & ~np.isin(index, part.get("skipped", ()))]
            if not np.array_equal(part["index"], wanted):
                raise UserError(f"{path} scores other images than {file} holds; remove it and evaluate again")


def merge(run_folder: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Adds up the parts of one evaluation and returns its means by variant.

    Raises:
        UserError: scores that are missing, doubled, or not those of the masks.
    """
    run = read_mask_run(run_folder)
    stored = read_json(folder / evaluation.OPTIONS_FILE)
    check(folder / evaluation.OPTIONS_FILE, stored, EvaluationRecord, "delete its folder and evaluate again")
    check_same_run(stored["run_hash"], run["hash"], folder / evaluation.OPTIONS_FILE)
    _check_scores(folder, run_folder, run["n_images"])
    protocol = folder.name.partition("-")[0]
    if protocol not in _EVALUATORS:
        raise UserError(
            f"{folder} is no evaluation's folder: its name begins with none of {list(_EVALUATORS)}"
        )
    options_class, evaluate = _EVALUATORS[protocol]
    how = {"run_folder": Path(run_folder), "num_shards": 1, "shard_index": 0}
    try:
        options = cli.parse(options_class, cli.arguments(options_class, stored["options"] | how))
    except UserError as error:
        raise UserError(
            f"{folder / evaluation.OPTIONS_FILE} is damaged: {error}; delete its folder and evaluate again"
        ) from error
    return tables.means_of(evaluate(options))
