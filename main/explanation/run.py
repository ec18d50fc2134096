"""A run of `explain.py`: its folder, the files of each picture, and the text that is printed."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ltx import config
from ltx.config import UserError, recipe_suffix
from ltx.datasets.base import seen
from ltx.datasets.classes import short_name
from ltx.datasets.pictures import PictureFiles, shown_name
from ltx.main.explanation.method import PictureMethod
from ltx.main.explanation.options import ExplainOptions
from ltx.main.explanation.pictures import Explained, stems, write_pictures
from ltx.main.runs.mask_files import MaskUnit, read_unit
from ltx.main.runs.mask_job import MaskJob
from ltx.main.runs.method import Method
from ltx.main.runs.run_folder import OtherRunError
from ltx.models.explainee import Explainee

log = logging.getLogger(__name__)

SCORES = ("probability", "masked_probability", "complement_probability", "mask_area")


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


def explain_all(
    job: MaskJob, method: Method, shown: str, names: list[str]
) -> Iterator[tuple[str, MaskUnit, Path]]:
    """Explain pictures side by side and write what is shown of each; what is there is not made again.

    Args:
        job: the run, one picture per mask file.
        method: makes the masks.
        shown: variant that is shown.
        names: name of each class.

    Yields:
        Name, `MaskUnit` and sheet of each picture that was not skipped.

    Raises:
        UserError: see `MaskJob.made`.
    """
    stem = stems(job.images.names)
    for index, path in enumerate(job.made(method)):
        unit, sheet = read_unit(path), job.folder / f"{stem[index]}_sheet.png"
        if not len(unit.index):
            continue
        if not _is_drawn(sheet, job.options.class_names):
            picture = seen(job.images.picture(index), job.explainee.input_size)
            write_pictures(job.folder, stem[index], Explained.of(picture, unit, shown, names))
        yield job.images.names[index], unit, sheet


def _is_drawn(sheet: Path, class_names: Path | None) -> bool:
    """True if a sheet, which is written last, is there and no older than the file of class names."""
    if not sheet.is_file():
        return False
    return class_names is None or class_names.stat().st_mtime_ns <= sheet.stat().st_mtime_ns


def describe(name: str, unit: MaskUnit, shown: str, names: list[str]) -> str:
    """Text about one picture: its top classes and, for each class explained, the scores of its mask."""
    top = zip(unit.arrays["top_class"][0], unit.arrays["top_probability"][0], strict=True)
    lines = [f"{name}", "  " + ", ".join(f"{short_name(names[c])} {p:.1%}" for c, p in top)]
    for row, label in enumerate(unit.classes):
        p, masked, complement, area = (float(unit.arrays[score][row]) for score in SCORES)
        lines.append(
            f"  {short_name(names[label])} ({label}), {shown}: keeps {area:.1%} of the image; "
            f"probability {p:.1%}, on the masked image {masked:.1%}, on its complement {complement:.1%}"
        )
    return "\n".join(lines)


def mean_scores(units: list[MaskUnit], shown: str) -> dict[str, dict[str, float]]:
    """Means of the scores over all pictures and classes, in percent, under the variant that is shown."""
    values = {name: np.concatenate([unit.arrays[name] for unit in units]) for name in SCORES}
    return {shown: {name: 100 * float(value.mean()) for name, value in values.items()}}


def _fingerprint(path: Path) -> list:
    status = path.lstat()
    return [shown_name(path.name), status.st_size, status.st_mtime_ns]
