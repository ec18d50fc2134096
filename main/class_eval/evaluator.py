"""Do maps follow the class that is asked for? Measures of a run's mask files, question by question."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ltx.datasets.base import ImageSet
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.class_eval.methods import PROTOCOL
from ltx.main.class_eval.options import ClassEvalOptions
from ltx.main.class_eval.questions import (
    ABSENT,
    BACKGROUND,
    KINDS,
    OBJECT,
    Question,
    peaks_on_asked,
    share_on_asked,
)
from ltx.main.common.drawing import overlay
from ltx.main.common.figures import write_sheet
from ltx.main.runs import tables
from ltx.main.runs.build_images import images_of
from ltx.main.runs.mask_files import MaskUnit, read_unit
from ltx.main.runs.mask_job import MaskJob
from ltx.main.runs.method import Method

_PICTURES = 8


def open_pictures(options: ClassEvalOptions) -> ImageSet:
    """Two-digit pictures for digits, else a set with object masks.

    Raises:
        UserError: no such images.
    """
    images = images_of(options)
    if isinstance(images, DigitsOnPhotos):
        return DigitsOnPhotos(images.split, len(images), images.image_size, n_digits=2)
    return images


def evaluate(job: MaskJob, method: Method) -> dict[str, dict]:
    """Ask every method for every class of the pictures and measure where its maps lie.

    Writes the mask files that are missing, `per_question.csv`, `summary.json` and `sheet.png` into the job's
    folder.

    Returns:
        `rows` of summary.json.

    Raises:
        UserError: no labels; see `MaskJob.made`.
    """
    variants = list(method.record["candidates"])
    measured, shown = [], []
    for path in job.made(method):
        unit = read_unit(path)
        asked = list(_questions(job, unit))
        for variant in variants:
            maps = unit.maps(variant, job.explainee.input_size).numpy()
            measured += [(variant, *_measured(s, q)) for s, (_, q) in zip(maps, asked, strict=True)]
        for row, (pixels, question) in enumerate(asked[: _PICTURES - len(shown)]):
            maps = (unit.maps(v, job.explainee.input_size, slice(row, row + 1))[0] for v in variants)
            shown.append((pixels, question, *maps))
    rows = {variant: _row([row[1:] for row in measured if row[0] == variant]) for variant in variants}
    header = ["variant", "image", "kind", "class", "mean", "share", "peak"]
    tables.write_per_image(job.folder / "per_question.csv", header, measured)
    settings = {"steps": job.options.steps, "class": "asked"}
    tables.write_summary(job.folder, PROTOCOL, settings, job.start(method)["hash"], rows)
    _write_sheet(job.folder / "sheet.png", variants, shown)
    return rows


def _questions(job: MaskJob, unit: MaskUnit) -> Iterator[tuple[Tensor, Question]]:
    """Yield picture and question of each row; the rows of one picture stand together."""
    rows = zip(unit.index.tolist(), unit.arrays["kind"].tolist(), unit.classes.tolist(), strict=True)
    for index, of_one in itertools.groupby(rows, lambda row: row[0]):
        position = job.chosen[index]
        sample, name = job.images[position], job.images.names[position]
        for _, kind, label in of_one:
            yield sample["image"], Question.of(name, sample, KINDS[kind], label)


def _measured(saliency: np.ndarray, question: Question) -> tuple:
    """A row of per_question.csv, but for the variant; share and peak are NaN for an absent class."""
    head = (question.name, question.kind, question.label, float(saliency.mean()))
    if question.kind == ABSENT:
        return *head, float("nan"), float("nan")
    return *head, share_on_asked(saliency, question), float(peaks_on_asked(saliency, question))


def _row(measured: list[tuple]) -> dict[str, tables.Figure]:
    """The figures of one variant, in percent.

    `absent_ratio` is the mean of the maps for absent classes over the mean of those for the objects.
    """
    by_kind = {kind: [row[3:] for row in measured if row[1] == kind] for kind in (OBJECT, BACKGROUND, ABSENT)}
    row = {}
    for kind in (OBJECT, BACKGROUND):
        if by_kind[kind]:
            _, shares, peaks = np.array(by_kind[kind]).T
            row[f"{kind}_peak"] = tables.entry(100 * float(peaks.mean()), len(peaks), True)
            row[f"{kind}_share"] = tables.entry(100 * float(shares.mean()), len(shares), True)
    means = {kind: np.array(values)[:, 0].mean() for kind, values in by_kind.items() if values}
    row["object_mean"] = tables.entry(100 * float(means[OBJECT]), len(by_kind[OBJECT]), None)
    if ABSENT in means:
        n = len(by_kind[ABSENT])
        row["absent_mean"] = tables.entry(100 * float(means[ABSENT]), n, False)
        ratio = means[ABSENT] / means[OBJECT] if means[OBJECT] > 0 else np.nan
        row["absent_ratio"] = tables.entry(100 * float(ratio), n, False)
    return row


def _write_sheet(path: Path, variants: list[str], pictures: list[tuple]) -> None:
    """One row per question: the picture, then the map of each method over it, as bright as it is."""
    rows, captions = [], []
    for pixels, question, *maps in pictures:
        rows.append([pixels.permute(1, 2, 0).numpy(), *(overlay(pixels, saliency) for saliency in maps)])
        captions.append(f"{question.kind}\n{question.label}")
    write_sheet(path, rows, ["image", *variants], captions)
