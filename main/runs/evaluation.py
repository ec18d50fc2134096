"""The shared part of both evaluators: scoring of mask files in parts that survive a kill, and adding up.

The scores of a mask file are written in parts of `PART_IMAGES` images each. A part that exists is not made
again, so a killed evaluation loses the work on one part.
"""

import dataclasses
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ltx.config import UserError
from ltx.datasets.manifest import read_names
from ltx.datasets.pictures import is_within
from ltx.main.common.launch import shard_of
from ltx.main.common.progress import progress_bar
from ltx.main.runs.files import read_json, write_json
from ltx.main.runs.locks import claimed
from ltx.main.runs.mask_files import MaskUnit, read_unit, unit_files, unit_path, units
from ltx.main.runs.run_folder import check_same_run, resolved_options
from ltx.main.runs.run_record import MaskRunRecord
from ltx.main.runs.skipped import without_unread, write_lists, write_unread
from ltx.models.files import remove_leftovers, replace_file

log = logging.getLogger(__name__)

PART_IMAGES = 64
# Far above what the scores of a mask file take: a zip file can claim a thousand times its size.
_LARGEST_PART = 2**30
# What `merge_results.py` needs to add up an evaluation again.
OPTIONS_FILE = "options.json"


class Scorer(Protocol):
    """Scores the maps of mask files, `batch_size` images at once."""

    @property
    def batch_size(self) -> int: ...

    def score(self, unit: MaskUnit, batches: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the scores of each batch of B rows of a unit.

        `values` (variants, B, metrics); `unread` (B,), why an image can no longer be read, else ""; and any
        further arrays (B,) or (variants, B, K).
        """


def results_folder(options, protocol: str, *settings: str) -> Path:
    """Return the results folder, named after the protocol and the settings that are not empty."""
    if options.exclude_manifest is not None:
        settings = (*settings, f"without-{options.exclude_manifest.stem}")
    return Path(options.run_folder) / "results" / "-".join([protocol, *filter(None, settings)])


def score_units(
    options,
    folder: Path,
    run: MaskRunRecord,
    title: str,
    prepare: Callable[[], Scorer],
    metrics: Sequence[str] = (),
) -> dict[str, np.ndarray] | None:
    """Score this process's share of a run's mask files, and join the scores of all.

    Args:
        options: `run_folder`, `exclude_manifest`, `num_shards` and `shard_index`.
        folder: results folder.
        run: the run's run.json.
        title: label of the progress bar.
        prepare: returns the scorer; called only if there is something to score.
        metrics: names of the metrics; parts made with other ones are made again.

    Returns:
        `index` (N,), `variants`, and what the scorer yields, of all images; None while other shards have
        still to make or score mask files.

    Raises:
        UserError: there are no mask files, one of another run, no file where `exclude_manifest` says, no
            image to score, or another process is at work on the same scores.
    """
    if options.exclude_manifest is not None:
        read_names(options.exclude_manifest)  # before hours of scoring, not after
    expected = _expected_files(options.run_folder, run)
    _write_options(folder, options, run)
    mine = shard_of(expected, options.num_shards, options.shard_index)
    number = {file: i for i, file in enumerate(expected)}

    def unscored() -> dict[Path, dict[Path, range]]:
        missing = {file: _missing_parts(folder, file, metrics) for file in mine if file.is_file()}
        return {file: parts for file, parts in missing.items() if parts}

    with claimed(folder, [number[file] for file in unscored()], "the scores of the same mask files"):
        todo = unscored()  # again: another process may have scored some, and have ended, until the claim
        scorer = prepare() if todo else None
        total = sum(len(span) for file in mine if file.is_file() for span in parts_of(folder, file).values())
        left = sum(len(span) for parts in todo.values() for span in parts.values())
        with progress_bar(
            desc=title, unit="image", initial=total - left, total=total, disable=not todo
        ) as bar:
            for file, parts in todo.items():
                _score_file(file, parts, scorer, run, options.run_folder, metrics, bar)
    return _join_parts(folder, expected, len(mine) < len(expected), options.run_folder, metrics)


def _score_file(file, parts: dict[Path, range], scorer: Scorer, run, run_folder, metrics, bar) -> None:
    """Write the given parts of the scores of one mask file."""
    unit = read_unit(file)
    check_same_run(unit.attributes.get("run_hash"), run.hash, file)
    for row, why in unit.not_finite().items():  # no method of ours writes such a file
        name = read_names(Path(run_folder) / "manifest.csv")[unit.index[row]]
        raise UserError(f"{file}, image {name}: {why}; delete the file and make its masks again")
    if not np.isin(unit.index, _positions_of(file)).all():
        raise UserError(f"{file} contains images other than its name says; delete it and make it again")
    rows = {path: np.flatnonzero(np.isin(unit.index, span)) for path, span in parts.items()}
    size = scorer.batch_size
    batches = {path: [own[i : i + size] for i in range(0, len(own), size)] for path, own in rows.items()}
    # One stream for all parts, so that processes that read images start once per mask file.
    stream = scorer.score(unit, [batch for cut in batches.values() for batch in cut])
    for path, span in parts.items():
        remove_leftovers(path)
        found = []
        for batch in batches[path]:
            found.append(next(stream))
            bar.update(len(np.unique(unit.index[batch])))
        bar.update(len(span) - len(np.unique(unit.index[rows[path]])))  # images without a map
        scores = {"index": unit.index[rows[path]]}
        if found:
            scores = without_unread(scores | _joined(found)) | {"variants": np.array(unit.variants)}
        write_part(path, scores | {"metrics": np.array(metrics, dtype=str)})


def _join_parts(
    folder: Path, expected: list[Path], shared: bool, run_folder: Path, metrics: Sequence[str]
) -> dict[str, np.ndarray] | None:
    """Join the parts of all mask files that exist; None while those of other shards are missing."""
    made = [file for file in expected if file.is_file()]
    if (shared and len(made) < len(expected)) or any(_missing_parts(folder, file, metrics) for file in made):
        log.warning("other shards have still to make or score mask files; the last one adds up")
        return None
    if len(made) < len(expected):
        log.warning(
            "only %d of %d mask files are there; their images alone are scored", len(made), len(expected)
        )
    parts = [read_part(path) for file in made or unit_files(run_folder) for path in parts_of(folder, file)]
    write_lists(run_folder)
    write_unread(folder, run_folder, parts)
    parts = [part for part in parts if len(part["index"])]
    if not parts:
        raise UserError(f"no image of {run_folder} has a map and can be read; skipped.csv says why")
    same = {key: parts[0][key] for key in ("variants", "metrics")}
    return _joined(parts) | same


def _joined(found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join arrays (N,) or (variants, N, ...) along N, those that all have."""
    common = [key for key in found[0] if all(key in one for one in found)]
    return {key: np.concatenate([one[key] for one in found], axis=min(1, found[0][key].ndim - 1))
            for key in common}  # fmt: skip


def _write_options(folder: Path, options, run: MaskRunRecord) -> None:
    how = {
        field.name for field in dataclasses.fields(options) if field.metadata["group"] in ("run", "shards")
    }
    how = (how | {"run_folder"}) - {"precision"}
    values = {name: value for name, value in resolved_options(options).items() if name not in how}
    path = folder / OPTIONS_FILE
    stored = read_json(path) if path.is_file() else {"run_hash": run.hash}
    if not isinstance(stored, dict) or stored.get("run_hash") != run.hash:
        log.warning("%s holds scores of another run, which are made anew", folder)
        shutil.rmtree(folder / "parts", ignore_errors=True)
    write_json(path, {"run_hash": run.hash, "options": values})


def _expected_files(run_folder: Path, run: MaskRunRecord) -> list[Path]:
    """Return the mask files of the finished run."""
    if run.unit_size is None:
        return unit_files(run_folder)
    return [unit_path(run_folder, unit) for unit in units(run.n_images, run.unit_size)]


def kept_images(options, index: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the names of the run's images by position, and a mask (N,) of those that are not excluded.

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


def parts_of(folder: Path, file: Path) -> dict[Path, range]:
    """Return the parts of the scores of a mask file, with the positions of their images in the run.

    A part that holds the whole file is used as it is.
    """
    whole = _positions_of(file)
    size = len(whole) if (folder / "parts" / f"{file.stem}.npz").is_file() else PART_IMAGES
    spans = [whole[start : start + size] for start in range(0, len(whole), size)]
    return {folder / "parts" / f"{span[0]:06d}-{span[-1]:06d}.npz": span for span in spans}


def _positions_of(file: Path) -> range:
    """Return the positions that a mask file's name says."""
    first, _, last = file.stem.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < 10**7):
        raise UserError(f"{file} is not named <first>-<last>.h5, as mask files are; remove it")
    return range(int(first), int(last) + 1)


def _missing_parts(folder: Path, file: Path, metrics: Sequence[str]) -> dict[Path, range]:
    """Return those parts of a mask file that do not exist or hold other metrics."""

    def scored(path: Path) -> bool:
        return path.is_file() and read_part(path).get("metrics", np.array([])).tolist() == list(metrics)

    return {path: span for path, span in parts_of(folder, file).items() if not scored(path)}


def write_part(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a part, whole or not at all."""

    def write(temporary):
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    replace_file(path, write)


def read_part(path: Path) -> dict[str, np.ndarray]:
    """Return what `write_part` wrote.

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
        if not all(map(is_within, arrays.get("variants", np.array([])).tolist())):
            raise ValueError("it scores maps whose name is a path")
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"cannot read {path}: {error}; delete it and evaluate again") from error
    return arrays
