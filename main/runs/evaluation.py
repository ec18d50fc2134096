"""What both evaluators share: parts that survive a kill, per-image rows, the summary, the printed table."""

import dataclasses
import logging
import math
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from config import UserError
from datasets.manifest import read_names, write_rows
from datasets.mask_files import MaskUnit, read_unit, stays_in_folder, unit_files, unit_path, units
from main.claims import claimed
from main.cli import progress_bar
from main.json_shapes import SUMMARY, check_shape
from main.run_folder import check_same_run, read_json, read_run, resolved_options, write_json
from main.shards import shard_of
from main.skipped import counts, without_unread, write_lists, write_unread
from models.checkpoints import remove_leftovers, replace_file

log = logging.getLogger(__name__)

# Bytes of the scores of a mask file, far above what any has: a zip file can claim a thousand times its size.
_LARGEST_PART = 2**30
# What `main.merging` needs to add up an evaluation again.
OPTIONS_FILE = "options.json"


class Metric(Protocol):
    """What a table needs to know of a metric; `higher_is_better` is None where it ranks nothing."""

    name: str
    higher_is_better: bool | None


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


def write_per_image(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes one line per image and variant; floats with 6 significant digits, nothing for NaN."""

    def text(value):
        if not isinstance(value, float):
            return value
        return "" if math.isnan(value) else f"{value:.6g}"

    write_rows(path, header, ([text(value) for value in row] for row in rows))


def entry(mean: float | None, n: int, higher_is_better: bool | None) -> dict[str, Any]:
    """One figure of summary.json: the mean over the n images that count (None where none does)."""
    return {"mean": mean, "n": n, "higher_is_better": higher_is_better}


def summary_rows(
    variants: Sequence[str], metrics: Sequence[Metric], means: np.ndarray, n: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """`rows` of summary.json from means (variants, metrics) over n images."""
    return {
        variant: {
            metric.name: entry(float(means[v, m]), n, metric.higher_is_better)
            for m, metric in enumerate(metrics)
        }
        for v, variant in enumerate(variants)
    }


def write_summary(folder: Path, protocol: str, settings: dict, run_hash: str, rows: dict, **more) -> None:
    """Writes summary.json, with the number of images that the run and the evaluation left out."""
    content = {"protocol": protocol, "settings": settings, "run_hash": run_hash, "rows": rows}
    content |= counts(folder.parents[1], folder)
    write_json(folder / "summary.json", content | more)


def read_summary(folder: Path) -> dict:
    """summary.json of a results folder.

    Raises:
        UserError: it is missing or damaged.
    """
    path = Path(folder) / "summary.json"
    summary = read_json(path)
    check_shape(path, summary, SUMMARY, "delete its folder and evaluate again")
    return summary


def means_of(rows: dict) -> dict[str, dict[str, float]]:
    """`rows` of a summary as plain numbers by variant and metric."""
    return {
        variant: {name: entry["mean"] for name, entry in row.items() if entry["mean"] is not None}
        for variant, row in rows.items()
    }


def arrow(higher_is_better: bool | None) -> str:
    """Which direction is better."""
    return {True: "↑", False: "↓", None: ""}[higher_is_better]


def candidates_of(run_folder: Path) -> dict[str, int]:
    """How many maps each variant of a run was chosen from, as far as the run says."""
    return read_run(run_folder).get("candidates", {})


def format_table(rows: dict, title: str, candidates: dict[str, int] | None = None) -> str:
    """`rows` of a summary as text, an arrow for the better direction.

    Args:
        rows: as in summary.json.
        title: line above the table.
        candidates: how many maps each variant was chosen from; a column of its own where any was.
    """
    if any(n > 1 for n in (candidates or {}).values()):
        rows = {
            variant: {"maps tried": entry(candidates.get(variant, 1), 0, None)} | row
            for variant, row in rows.items()
        }
    first = next(iter(rows.values()))
    heads = [f"{name} {arrow(entry['higher_is_better'])}".strip() for name, entry in first.items()]
    width = max(len("method"), *(len(variant) for variant in rows))
    widths = [max(len(head), 7) for head in heads]
    lines = [
        title,
        f"{'method':<{width}}  " + "  ".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True)),
    ]
    for variant, row in rows.items():
        cells = [row.get(name, {}).get("mean") for name in first]
        texts = [
            "-" if cell is None else str(cell) if isinstance(cell, int) else f"{cell:.2f}" for cell in cells
        ]
        lines.append(
            f"{variant:<{width}}  " + "  ".join(f"{t:>{w}}" for t, w in zip(texts, widths, strict=True))
        )
    return "\n".join(lines)
