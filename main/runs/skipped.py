"""Lists of a run's images without a map, `skipped.csv`, and with broken numbers, `not_finite.csv`.

Both are made from the mask files, so they are right after a kill and for any number of shards, and name no
image twice. An empty list is not written.
"""

import csv
import logging
from pathlib import Path

import numpy as np

from ltx.config import UserError
from ltx.datasets.manifest import read_names
from ltx.main.runs.files import write_rows
from ltx.main.runs.mask_files import read_notes, unit_files

log = logging.getLogger(__name__)

SKIPPED_FILE, NOT_FINITE_FILE = "skipped.csv", "not_finite.csv"
FIELDS = ("img_name", "reason")


def write_lists(folder: Path) -> int:
    """Write both lists of a run folder from its mask files.

    Returns:
        The number of images in the mask files.

    Raises:
        UserError: no mask files, a damaged one, or one that skips an image that the manifest does not list.
    """
    names, n_images, skipped, ended = read_names(Path(folder) / "manifest.csv"), 0, {}, {}
    for path in unit_files(folder):
        held, without_map, not_finite = read_notes(path)
        n_images += held
        skipped |= without_map
        ended |= {
            position: f"loss or mask not finite from step {step} on; the masks of the steps before are kept"
            for position, step in not_finite.items()
        }
        outside = [position for position in (*without_map, *not_finite) if not 0 <= position < len(names)]
        if outside:
            raise UserError(f"{path} speaks of image {outside[0]}, which manifest.csv does not list")
    for file, found in ((SKIPPED_FILE, skipped), (NOT_FINITE_FILE, ended)):
        if found or (Path(folder) / file).exists():
            write_list(Path(folder) / file, {names[position]: found[position] for position in sorted(found)})
    return n_images


def write_list(path: Path, reasons: dict[str, str]) -> None:
    """Write image names with reasons."""
    write_rows(path, FIELDS, reasons.items())


def read_list(path: Path) -> dict[str, str]:
    """Return reasons by image name; empty without such a list.

    Raises:
        UserError: the file is no such list.
    """
    if not path.is_file():
        return {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return {row["img_name"]: row["reason"] or "" for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}; delete it and run the command again") from error


def counts(run_folder: Path, results: Path | None = None) -> dict[str, int]:
    """Count the images that a run and its evaluations left out, and those that ended early.

    Args:
        run_folder: the run.
        results: folder of one evaluation (default: all of them).
    """
    run_folder = Path(run_folder)
    places = [results] if results is not None else sorted((run_folder / "results").glob("*/"))
    skipped = {name for place in (run_folder, *places) for name in read_list(place / SKIPPED_FILE)}
    return {"skipped": len(skipped), "not_finite": len(read_list(run_folder / NOT_FINITE_FILE))}


def without_unread(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return scores without the images that could not be read again; `skipped` and `reason` name those.

    Args:
        scores: as `results.score_units` wants them, and perhaps `unread` (N,), why each could not be read.
    """
    unread = scores.pop("unread", None)
    if unread is None or not (unread != "").any():
        return scores
    keep, index = unread == "", scores["index"]
    kept = {
        name: values if name == "variants" else values[keep] if values.ndim == 1 else values[:, keep]
        for name, values in scores.items()
    }
    return kept | {"skipped": index[~keep], "reason": unread[~keep]}


def write_unread(folder: Path, run_folder: Path, parts: list[dict[str, np.ndarray]]) -> None:
    """Write skipped.csv of an evaluation: images that could be read only when the maps were made."""
    found = {
        int(position): str(reason)
        for part in parts
        for position, reason in zip(part.get("skipped", ()), part.get("reason", ()), strict=True)
    }
    if found or (folder / SKIPPED_FILE).exists():
        names = read_names(Path(run_folder) / "manifest.csv")
        write_list(folder / SKIPPED_FILE, {names[position]: found[position] for position in sorted(found)})
        log.warning("%d images could not be read again and are not scored; see %s", len(found), folder)
