"""A run of `explain.py`: its folder, the files of each picture, and the text that is printed."""

import dataclasses
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ltx import config
from ltx.config import UserError, recipe_suffix
from ltx.datasets.base import crop_corner, seen, to_tensor
from ltx.datasets.classes import short_name
from ltx.datasets.pictures import PictureFiles, shown_name
from ltx.main.common.drawing import Style
from ltx.main.common.names import choose_names
from ltx.main.explanation.keeping import keeping_levels
from ltx.main.explanation.method import PictureMethod
from ltx.main.explanation.options import OUTPUTS, ExplainOptions
from ltx.main.explanation.pictures import (
    SCORES,
    WITH_LEVEL,
    Explained,
    Look,
    scores_of,
    starts,
    stems,
    write_pictures,
)
from ltx.main.interface.verdict import warnings_of
from ltx.main.runs.files import read_json, write_json
from ltx.main.runs.mask_files import MaskUnit, read_unit
from ltx.main.runs.mask_job import MaskJob
from ltx.main.runs.method import Method
from ltx.main.runs.run_folder import OtherRunError
from ltx.models.explainee import Explainee

log = logging.getLogger(__name__)

_LOOK_FILE = ".look.json"  # what the pictures of a folder were drawn with
_SMALLEST = 32


def open_job(
    options: ExplainOptions, explainee: Explainee, pictures: PictureFiles, how: PictureMethod
) -> tuple[MaskJob, Method]:
    """The run and its method; without `--run-name`, in the first folder that is free or holds this run.

    Raises:
        UserError: the named folder holds another run, or a `--batch-size` that does not fit the memory.
    """
    method = how.of(explainee)
    root = options.default_root_dir or config.RESULTS
    what = stems(pictures.names)[0] if len(pictures) == 1 else pictures.root.name
    name = options.run_name or f"explain-{what}-{explainee.name}-{how.name}{recipe_suffix(options.recipe)}"
    identity = {"pictures": [_fingerprint(pictures.path(index)) for index in range(len(pictures))]}
    job = MaskJob(root / name, options, explainee, pictures, range(len(pictures)), how.ask, 1, identity)
    if options.run_name is not None:
        return job, method
    for number in range(1, 1000):
        job = dataclasses.replace(job, folder=root / (name if number == 1 else f"{name}-{number}"))
        try:
            job.start(method)
            return job, method
        except OtherRunError:
            log.info("%s holds another run", job.folder)
    raise UserError(f"{root} is full of runs named {name}; pass --run-name")


def look_of(options: ExplainOptions, previews: bool) -> Look:
    """Return what the options want to be written of each picture.

    Raises:
        UserError: no such output or colour map, or a number out of its range.
    """
    outputs = choose_names("--outputs", "output", options.outputs, OUTPUTS)
    if options.max_size is not None and options.max_size < _SMALLEST:
        raise UserError(f"--max-size {options.max_size}: wanted at least {_SMALLEST} pixels")
    return Look(tuple(outputs), Style(options.colormap, options.alpha), options.max_size, previews)


@dataclass(frozen=True)
class Told:
    """One picture as text, gallery and table need it.

    Attributes:
        name: of the picture.
        start: of the names of each row's files.
        sheet: its sheet.
        unit: its maps.
        warnings: by row, why the explanation looks failed.
    """

    name: str
    start: list[str]
    sheet: Path
    unit: MaskUnit
    warnings: list[list[str]]


def explain_all(job: MaskJob, method: Method, shown: str, names: list[str], look: Look) -> Iterator[Told]:
    """Explain pictures side by side and write what is shown of each; what is there is not made again.

    Args:
        job: the run, one picture per mask file.
        method: makes the masks.
        shown: variant that is shown.
        names: name of each class.
        look: files that are written.

    Yields:
        Each picture that was not skipped.

    Raises:
        UserError: see `MaskJob.made`.
    """
    stem = stems(job.images.names)
    for number, path in enumerate(job.made(method)):
        if number == 0:
            _forget_other_looks(job.folder, stem, look)
        unit, sheet = read_unit(path), job.folder / f"{stem[number]}_sheet.png"
        if not len(unit.index):
            continue
        warnings = _warnings(unit, shown)
        explained = functools.partial(Explained, unit=unit, shown=shown, names=names, warnings=warnings)
        if not _is_drawn(sheet, job.options.class_names):
            picture = job.images.picture(number)
            part = seen(picture, job.explainee.input_size)
            corner = crop_corner(picture.size, job.explainee.input_size)
            levels = _levels(job.explainee, picture, unit, shown) if WITH_LEVEL & set(look.outputs) else []
            write_pictures(job.folder, stem[number], explained(part, corner, levels=levels), look)
        start = starts(stem[number], unit.classes, names)
        yield Told(job.images.names[number], start, sheet, unit, warnings)


def _warnings(unit: MaskUnit, shown: str) -> list[list[str]]:
    scores = {name: torch.from_numpy(unit.arrays[name]) for name in SCORES}
    return warnings_of(scores, torch.from_numpy(unit.token_masks[shown]))


def _levels(explainee: Explainee, picture: Image.Image, unit: MaskUnit, shown: str) -> list[float]:
    height, width = explainee.input_size
    image, maps = to_tensor(picture, explainee.input_size), unit.maps(shown, (height, width))
    return keeping_levels(explainee, image, maps, torch.from_numpy(unit.classes))


def _forget_other_looks(folder: Path, stem: Sequence[str], look: Look) -> None:
    """Delete the sheets of a folder that another look was written to, so that all is drawn again."""
    record, wanted = folder / _LOOK_FILE, json.loads(json.dumps(dataclasses.asdict(look)))
    if record.is_file() and read_json(record) == wanted:
        return
    for one in stem:
        (folder / f"{one}_sheet.png").unlink(missing_ok=True)
    write_json(record, wanted)


def _is_drawn(sheet: Path, class_names: Path | None) -> bool:
    """True if a sheet, which is written last, is there and no older than the file of class names."""
    if not sheet.is_file():
        return False
    return class_names is None or class_names.stat().st_mtime_ns <= sheet.stat().st_mtime_ns


def describe(told: Told, shown: str, names: list[str]) -> str:
    """Text about one picture: its top classes and, for each class explained, the scores of its mask."""
    unit = told.unit
    top = zip(unit.arrays["top_class"][0], unit.arrays["top_probability"][0], strict=True)
    lines = [told.name, "  " + ", ".join(f"{short_name(names[c])} {p:.1%}" for c, p in top)]
    for row, label in enumerate(unit.classes):
        p, masked, complement, area = scores_of(unit, row).values()
        lines.append(
            f"  {short_name(names[label])} ({label}), {shown}: keeps {area:.1%} of the image; "
            f"probability {p:.1%}, on the masked image {masked:.1%}, on its complement {complement:.1%}"
        )
        lines += [f"  warning: {warning}" for warning in told.warnings[row]]
    return "\n".join(lines)


def mean_scores(units: list[MaskUnit], shown: str) -> dict[str, dict[str, float]]:
    """Means of the scores over all pictures and classes, in percent, under the variant that is shown."""
    values = {name: np.concatenate([unit.arrays[name] for unit in units]) for name in SCORES}
    return {shown: {name: 100 * float(value.mean()) for name, value in values.items()}}


def _fingerprint(path: Path) -> list:
    status = path.lstat()
    return [shown_name(path.name), status.st_size, status.st_mtime_ns]
