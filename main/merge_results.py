"""Check that the shards of a run fit together, and add up their scores.

    python main/merge_results.py data/results/RUN

Every image must be in exactly one mask file of this run, and in the scores of each evaluation that was begun.
Then `summary.json`, `per_image.csv` and the pictures of each are written. Shards from machines that share no
disk are merged by copying their `masks/` and `results/` into one folder first.
"""

from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[1] / "__init__.py"))

import dataclasses
import types
import typing
from collections.abc import Iterable
from dataclasses import MISSING, dataclass
from typing import Any

from ltx.config import UserError
from ltx.main.common import cli, progress
from ltx.main.common.options import option


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """`main/merge_results.py`: shards of a run, checked and added up."""

    run_folder: Path = option(MISSING, "folder of a run that made masks", flag="RUN_FOLDER")


def check_masks(run_folder: Path) -> int:
    """Check that each image of a run is in exactly one mask file, and write the list of skipped ones.

    Returns:
        The number of images.

    Raises:
        UserError: a missing shard, overlapping ones, an index out of range, a file of another run.
    """
    from ltx.main.runs.mask_files import read_unit, unit_files
    from ltx.main.runs.run_folder import check_same_run, read_mask_run
    from ltx.main.runs.skipped import write_lists

    run = read_mask_run(run_folder)
    n = run.n_images
    owner: dict[int, Path] = {}
    for path in unit_files(run_folder):
        unit = read_unit(path)
        check_same_run(unit.attributes.get("run_hash"), run.hash, path)
        _claim([*unit.index, *unit.skipped], path, n, owner)
    _nothing_missing(owner, n, run.unit_size or n, run_folder)
    write_lists(run_folder)
    return n


def _claim(index: Iterable[int], path: Path, n: int, owner: dict[int, Path]) -> None:
    """Note that a file has these images; rows of one image in one file are its classes."""
    for image in sorted({int(i) for i in index}):
        if not 0 <= image < n:
            raise UserError(f"{path} holds image {image}, but the run has images 0 ... {n - 1}")
        if image in owner:
            raise UserError(
                f"image {image} is in both {owner[image]} and {path}: the shards overlap; remove one"
            )
        owner[image] = path


def _nothing_missing(owner: dict[int, Path], n: int, unit_size: int, run_folder: Path) -> None:
    from ltx.main.runs.mask_files import unit_path, units

    missing = sorted(set(range(n)) - owner.keys())
    if not missing:
        return
    files = [unit_path(run_folder, unit).name for unit in units(n, unit_size) if unit[0] in missing]
    names = f" (files {', '.join(files[:3])}{', ...' if len(files) > 3 else ''})" if files else ""
    raise UserError(
        f"{len(missing)} of {n} images have no mask, from image {missing[0]} on{names}: a shard is missing "
        "or still at work; run its command again"
    )


def evaluations(run_folder: Path) -> list[Path]:
    """Folders of the evaluations of a run that were begun, in order."""
    from ltx.main.runs import evaluation

    return sorted(path.parent for path in (Path(run_folder) / "results").glob(f"*/{evaluation.OPTIONS_FILE}"))


def merge(run_folder: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Add up the parts of one evaluation and return its means by variant.

    Raises:
        UserError: scores that are missing, doubled, or not those of the masks.
    """
    from ltx.main.perturbation_eval import evaluator as perturbation
    from ltx.main.perturbation_eval.options import PerturbationOptions
    from ltx.main.runs import evaluation, tables
    from ltx.main.runs.files import read_json
    from ltx.main.runs.run_folder import check_same_run, read_mask_run
    from ltx.main.runs.run_record import EvaluationRecord, check
    from ltx.main.segmentation_eval import evaluator as segmentation
    from ltx.main.segmentation_eval.options import SegmentationOptions

    evaluators: dict[str, tuple[type, Any]] = {
        perturbation.PROTOCOL: (PerturbationOptions, perturbation.evaluate),
        segmentation.PROTOCOL: (SegmentationOptions, segmentation.evaluate),
    }
    run = read_mask_run(run_folder)
    stored = read_json(folder / evaluation.OPTIONS_FILE)
    check(folder / evaluation.OPTIONS_FILE, stored, EvaluationRecord, "delete its folder and evaluate again")
    check_same_run(stored["run_hash"], run.hash, folder / evaluation.OPTIONS_FILE)
    _check_parts(run_folder, folder, run.n_images)
    protocol = folder.name.partition("-")[0]
    if protocol not in evaluators:
        raise UserError(
            f"{folder} is no evaluation's folder: its name begins with none of {list(evaluators)}"
        )
    options_class, evaluate = evaluators[protocol]
    how = {"run_folder": str(run_folder), "num_shards": 1, "shard_index": 0}
    try:
        options = _options_of(options_class, stored["options"] | how)
    except UserError as error:
        raise UserError(
            f"{folder / evaluation.OPTIONS_FILE} is damaged: {error}; delete its folder and evaluate again"
        ) from error
    return tables.means_of(evaluate(options))


def _check_parts(run_folder: Path, folder: Path, n: int) -> None:
    """Raise `UserError` unless the parts of an evaluation score the run's maps, each once."""
    import numpy as np

    from ltx.main.runs import evaluation
    from ltx.main.runs.mask_files import read_unit, unit_files

    owner: dict[int, Path] = {}
    for path in sorted((folder / "parts").glob("*.npz")):
        _claim(evaluation.read_part(path)["index"], path, n, owner)
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


def _options_of(options_class: type, stored: dict[str, Any]) -> Any:
    """Options as JSON stores them.

    Raises:
        UserError: a name that is no option, or a value of another type.
    """
    hints = typing.get_type_hints(options_class)
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    values = {}
    for name, value in stored.items():
        if name not in fields:
            raise UserError(f"'{name}' is no option")
        hint, choices = hints[name], fields[name].metadata["choices"]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if Path in kinds and isinstance(value, str):
            value = Path(value)
        elif type(value) not in kinds or (choices and value is not None and value not in choices):
            raise UserError(f"'{name}' is {value!r:.60}")
        values[name] = value
    return options_class(**values)


@cli.script(MergeOptions)
def main(options: MergeOptions) -> tuple[Path, dict, dict]:
    """Check the masks, then add up every evaluation."""
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
