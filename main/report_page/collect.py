"""Results of run folders, read from summary.json and per_image.csv: measures by variant and metric."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ltx.config import UserError
from ltx.datasets.manifest import read_names
from ltx.main.common import progress
from ltx.main.perturbation_eval.evaluator import PROTOCOL as PERTURBATION
from ltx.main.perturbation_eval.information import LEVELS
from ltx.main.perturbation_eval.metrics import METRICS, Summary
from ltx.main.report_page.measures import Measure, PerturbationMeasure, SegmentationMeasure
from ltx.main.runs.run_folder import read_mask_run
from ltx.main.runs.run_record import MaskRunRecord, SummaryRecord
from ltx.main.runs.tables import read_summary
from ltx.main.segmentation_eval.evaluator import PROTOCOL as SEGMENTATION
from ltx.main.segmentation_eval.metrics import void_policies

EVALUATORS = {
    PERTURBATION: "main/perturbation_eval/run_perturbation_eval.py",
    SEGMENTATION: "main/segmentation_eval/run_segmentation_eval.py",
}
# Columns of text, by name.
Columns = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        name: on the page.
        renamed: the name was given on the command line.
        folder: its path.
        record: its run.json.
    """

    name: str
    renamed: bool
    folder: Path
    record: MaskRunRecord

    @cached_property
    def names(self) -> list[str]:
        """Images of the run by position."""
        return read_names(self.folder / "manifest.csv")


@dataclass(frozen=True)
class Result:
    """One results folder of a run.

    Attributes:
        run: the run.
        protocol: `perturbation` or `segmentation`.
        folder: its path.
        settings: of its summary.json, `class` being the class that is scored.
        index: (N,) positions in the run of the images that count.
        classes: (N,) class scored, -1 for segmentation.
        measures: by variant and metric.
        better: `higher_is_better` by metric.
    """

    run: Run
    protocol: str
    folder: Path
    settings: dict[str, Any]
    index: np.ndarray
    classes: np.ndarray
    measures: dict[str, dict[str, Measure]]
    better: dict[str, bool | None] = field(default_factory=dict)

    @property
    def images(self) -> list[str]:
        """Names of the images that count."""
        return [self.run.names[i] for i in self.index]


def open_runs(arguments: tuple[str, ...]) -> list[Run]:
    """Return the runs of the command line, each `PATH` or `NAME=PATH`.

    Raises:
        UserError: a folder is no run, or two have the same name.
    """
    runs = []
    for text in arguments:
        name, given, path = text.partition("=")
        if not given or "/" in name or Path(text).exists():
            name, given, path = "", "", text
        if given and not (name.strip() and path):
            raise UserError(f"{text}: wanted NAME=PATH, or the path of a run folder")
        folder = Path(path)
        if not folder.is_dir():
            raise UserError(f"no such run folder: {folder}")
        runs.append(Run(name.strip() or folder.resolve().name, bool(given), folder, read_mask_run(folder)))
    folders = [run.folder.resolve() for run in runs]
    for i, run in enumerate(runs):
        if folders[i] in folders[:i]:
            raise UserError(f"{run.folder} is given twice")
        if run.name in [other.name for other in runs[:i]]:
            raise UserError(f"two runs are named {run.name}; name one of them with NAME={run.folder}")
    return runs


def read_results(run: Run) -> list[Result]:
    """Return every finished evaluation of a run.

    Raises:
        UserError: there is none, or one is damaged or belongs to other masks; the message has the command.
    """
    folders = sorted(path.parent for path in (run.folder / "results").glob("*/summary.json"))
    results = [result for folder in folders for result in _read_folder(run, folder)]
    if not results:
        masks = run.record.dataset["kind"] in ("imagenet", "coco", "voc")
        script = SEGMENTATION if masks else PERTURBATION
        raise UserError(
            f"{run.folder} has no results; make them with 'python {EVALUATORS[script]} "
            f"{progress.display_path(run.folder)}'"
        )
    return results


def _read_folder(run: Run, folder: Path) -> Iterator[Result]:
    summary = read_summary(folder)
    protocol, path = summary["protocol"], folder / "per_image.csv"
    if protocol not in EVALUATORS:
        return
    again = f"delete it and run 'python {EVALUATORS[protocol]} {progress.display_path(run.folder)}'"
    if summary["run_hash"] != run.record.hash:
        raise UserError(f"{folder} scores masks that are no longer in {run.folder}; {again}")
    read = _perturbation if protocol == PERTURBATION else _segmentation
    try:
        tables = _per_image(path)
        if tables.keys() != summary["rows"].keys():
            raise ValueError("it has other variants than summary.json")
        index = _positions(tables, len(run.names))
        measures = {variant: read(columns, summary, variant) for variant, columns in tables.items()}
        scored = next(iter(tables.values())).get("scored_class")
        classes = np.full(len(index), -1) if scored is None else np.array(scored).astype(int)
    except KeyError as error:
        raise UserError(f"cannot read {path}: it has no column {error}; {again}") from error
    except (OSError, ValueError, OverflowError, StopIteration, csv.Error) as error:
        raise UserError(f"cannot read {path}: {str(error) or 'it is empty'}; {again}") from error
    better = {
        name: entry["higher_is_better"]
        for row in summary["rows"].values()
        for name, entry in row.items()
    }  # fmt: skip
    yield Result(run, protocol, folder, _settings(run, summary), index, classes, measures, better)


def _settings(run: Run, summary: SummaryRecord) -> dict[str, Any]:
    """Return settings with `class` resolved to `target` or `predicted`."""
    settings = dict(summary["settings"])
    scored = settings.get("class") or settings.get("score_class")
    return settings | {"class": run.record.explained_class if scored == "explained" else scored}


def _per_image(path: Path) -> dict[str, Columns]:
    """Return the columns of a per_image.csv by variant.

    Raises:
        ValueError: a line has too few or too many cells, or a column is missing.
    """
    lines = defaultdict(list)
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader)
        place = header.index("variant")
        for line in reader:
            if len(line) != len(header):
                raise ValueError(f"line {reader.line_num} has {len(line)} cells, the first {len(header)}")
            lines[line[place]].append(line)
    return {
        variant: dict(zip(header, zip(*some, strict=True), strict=True)) for variant, some in lines.items()
    }


def _positions(tables: dict[str, Columns], n_images: int) -> np.ndarray:
    """Return the positions (N,) of the images, the same for all variants.

    Raises:
        ValueError: variants of different images, no image, one twice, or one that the run does not have.
    """
    found = [np.array(columns["index"]).astype(int) for columns in tables.values()]
    if not found:
        raise ValueError("it lists no image")
    if not all(np.array_equal(index, found[0]) for index in found):
        raise ValueError("it does not list the same images for all variants")
    if len(np.unique(found[0])) < len(found[0]) or not 0 <= found[0].min() <= found[0].max() < n_images:
        raise ValueError(f"it lists an image twice, or one that is not among the run's {n_images}")
    return found[0]


def _perturbation(columns: Columns, summary: SummaryRecord, variant: str) -> dict[str, Measure]:
    known = {metric.name: metric for metric in METRICS}
    found: dict[str, Measure] = {}
    for name, figure in summary["rows"][variant].items():
        if name in known:
            values = np.array([float(text or "nan") for text in columns[name]])
            points = _points(columns[f"{name}_points"]) if known[name].in_csv else None
            x = summary.get("axes", {}).get(name, [])
            y = summary.get("curves", {}).get(variant, {}).get(name, [])
            whole = Summary(figure["mean"], figure["n"], (x, y) if x and len(x) == len(y) else None)
            found[name] = PerturbationMeasure(known[name], values, points, whole)
    return found


def _points(texts: Sequence[str]) -> np.ndarray:
    """Return points (N, 2 * 13) of information curves, NaN for images that do not count."""
    found = np.full((len(texts), 2 * len(LEVELS)), np.nan)
    for row, text in zip(found, texts, strict=True):
        if text:
            pairs = [pair.split(":") for pair in text.split()]
            row[:] = np.array(pairs, dtype=float).reshape(len(LEVELS), 2).T.ravel()
    return found


def _segmentation(columns: Columns, summary: SummaryRecord, variant: str) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for policy in void_policies(has_void=True):
        for metric in policy.metrics:
            names = {name: name + policy.suffix for name in metric.columns}
            if metric.name + policy.suffix in summary["rows"][variant]:
                values = {name: np.array(columns[full]).astype(float) for name, full in names.items()}
                found[metric.name + policy.suffix] = SegmentationMeasure(metric, values)
    return found
