"""What both evaluators share: parts that survive a kill, per-image rows, the summary, the printed table."""

import dataclasses
import logging
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ltx.config import UserError
from ltx.datasets.manifest import read_names
from ltx.main.common.launch import shard_of
from ltx.main.common.progress import progress_bar
from ltx.main.runs.files import read_json, write_json
from ltx.main.runs.locks import claimed
from ltx.main.runs.mask_files import MaskUnit, read_unit, stays_in_folder, unit_files, unit_path, units
from ltx.main.runs.run_folder import check_same_run, resolved_options
from ltx.main.runs.skipped import without_unread, write_lists, write_unread
from ltx.models.files import remove_leftovers, replace_file

log = logging.getLogger(__name__)

# Bytes of the scores of a mask file, far above what any has: a zip file can claim a thousand times its size.
_LARGEST_PART = 2**30
# What `merge_results.py` needs to add up an evaluation again.
OPTIONS_FILE = "options.json"


def score_units(
    options,
    folder: Path,
    run: dict,
    title: str,
    prepare: Callable[[], Callable[[MaskUnit, Path], dict]],
    metrics: Sequence[str] = (),
) -> list[dict[str, np.ndarray]] | None:
    """Scores this process's share of a run's mask files, each into a part that is not made again.

    Args:
        options: `run_folder`, `num_shards` and `shard_index`.
        folder: results folder.
        run: the run's run.json.
        title: what the progress bar says.
        prepare: called where anything is to be scored; returns what scores one unit, and may keep what it has
            done of it in a folder, which is removed when all is.
        metrics: names of the metrics; parts that were made with other ones are made again.

    Returns:
        The parts of all mask files in their order; None while other shards have still to make or score some.

    Raises:
        UserError: there are no mask files, one of another run, no file where `exclude_manifest` says, or
            another process is at work on the same scores.
    """
    if options.exclude_manifest is not None:
        read_names(options.exclude_manifest)  # before hours of scoring, not after
    expected = _expected_files(options.run_folder, run)
    _write_options(folder, options, run)
    number = {file: i for i, file in enumerate(expected)}
    mine = shard_of(expected, options.num_shards, options.shard_index)

    def unscored() -> list[Path]:
        return [file for file in mine if file.is_file() and not _is_scored(folder, file, metrics)]

    with claimed(folder, [number[file] for file in unscored()], "the scores of the same mask files"):
        todo = unscored()  # again: another process may have scored some, and have ended, until the claim
        score = prepare() if todo else None
        total = sum(file.is_file() for file in mine)
        bar = {"initial": total - len(todo), "total": total, "disable": not todo}
        for file in progress_bar(todo, desc=title, unit="file", **bar):
            remove_leftovers(part_path(folder, file))
            unit = read_unit(file)
            check_same_run(unit.attributes.get("run_hash"), run["hash"], file)
            _check_finite(unit, file, options.run_folder)
            scores = {"index": unit.index}
            if len(unit.index):
                scores = without_unread(score(unit, pieces_path(folder, file)))
            write_part(part_path(folder, file), scores | {"metrics": np.array(metrics, dtype=str)})
            shutil.rmtree(pieces_path(folder, file), ignore_errors=True)
    made = [file for file in expected if file.is_file()]
    shared = len(mine) < len(expected)
    if (shared and len(made) < len(expected)) or not all(_is_scored(folder, file, metrics) for file in made):
        log.warning("other shards have still to make or score mask files; the last one adds up")
        return None
    if len(made) < len(expected):
        log.warning(
            "only %d of %d mask files are there; their images alone are scored", len(made), len(expected)
        )
    for file in made:  # where a process was killed between the part and this
        shutil.rmtree(pieces_path(folder, file), ignore_errors=True)
    parts = [read_part(part_path(folder, file)) for file in made or unit_files(options.run_folder)]
    write_lists(options.run_folder)
    write_unread(folder, options.run_folder, parts)
    parts = [part for part in parts if len(part["index"])]
    if not parts:
        raise UserError(f"no image of {options.run_folder} has a map and can be read; skipped.csv says why")
    return parts


def _check_finite(unit: MaskUnit, file: Path, run_folder: Path) -> None:
    """Raises `UserError` where a map holds NaN or infinities: no method of ours writes such a file."""
    for row, why in unit.not_finite().items():
        name = read_names(Path(run_folder) / "manifest.csv")[unit.index[row]]
        raise UserError(f"{file}, image {name}: {why}; delete the file and make its masks again")


def _is_scored(folder: Path, file: Path, metrics: Sequence[str]) -> bool:
    """Whether a mask file has been scored by these metrics."""
    path = part_path(folder, file)
    return path.is_file() and read_part(path).get("metrics", np.array([])).tolist() == list(metrics)


def _write_options(folder: Path, options, run: dict) -> None:
    how = {
        field.name for field in dataclasses.fields(options) if field.metadata["group"] in ("run", "shards")
    }
    how = (how | {"run_folder"}) - {"precision"}
    values = {name: value for name, value in resolved_options(options).items() if name not in how}
    path = folder / OPTIONS_FILE
    stored = read_json(path) if path.is_file() else {"run_hash": run["hash"]}
    if not isinstance(stored, dict) or stored.get("run_hash") != run["hash"]:
        log.warning("%s holds scores of another run, which are made anew", folder)
        shutil.rmtree(folder / "parts", ignore_errors=True)
    write_json(path, {"run_hash": run["hash"], "options": values})


def _expected_files(run_folder: Path, run: dict) -> list[Path]:
    """The mask files that a run has when it is finished."""
    if "unit_size" not in run:
        return unit_files(run_folder)
    return [unit_path(run_folder, unit) for unit in units(run["n_images"], run["unit_size"])]


def kept_images(options, index: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the run's images by position, and which of the scored ones (N,) are not excluded.

    Args:
        options: `run_folder` and `exclude_manifest`.
        index: (N,) positions that were scored.

    Raises:
        UserError: none is left.
    """
    names = read_names(Path(options.run_folder) / "manifest.csv")
    keep = np.ones(len(index), bool)
    if options.exclude_manifest is not None:
        excluded = set(read_names(options.exclude_manifest))
        keep = np.array([names[i] not in excluded for i in index])
    if not keep.any():
        raise UserError(
            f"--exclude-manifest {options.exclude_manifest} leaves no image of {options.run_folder}"
        )
    return names, keep


def part_path(folder: Path, file: Path) -> Path:
    """Where the scores of one mask file lie."""
    return folder / "parts" / f"{file.stem}.npz"


def pieces_path(folder: Path, file: Path) -> Path:
    """Where pieces of the scores of one mask file lie until they are whole."""
    return folder / "parts" / file.stem


def write_part(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the scores of one mask file, whole or not at all."""

    def write(temporary):
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    replace_file(path, write)


def read_part(path: Path) -> dict[str, np.ndarray]:
    """Reads what `write_part` wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _LARGEST_PART:
            raise ValueError(f"it would take {size} bytes")
        with np.load(path, allow_pickle=False) as part:
            arrays = dict(part)
        if not all(map(stays_in_folder, arrays.get("variants", np.array([])).tolist())):
            raise ValueError("it scores maps whose name is a path")
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"cannot read {path}: {error}; delete it and evaluate again") from error
    return arrays
