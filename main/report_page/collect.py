"""What the evaluators stored in run folders, read again: per-image measures by variant and metric."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ltx.config import UserError
from ltx.datasets.manifest import read_names
from ltx.main.common import progress
from ltx.main.perturbation_eval.evaluator import PROTOCOL as PERTURBATION
from ltx.main.perturbation_eval.metrics import METRICS, Metric
from ltx.main.perturbation_eval.unit_scorer import detail_of
from ltx.main.report_page.measures import Measure, PerturbationMeasure, SegmentationMeasure
from ltx.main.runs.evaluation import part_path, read_part
from ltx.main.runs.mask_files import unit_files
from ltx.main.runs.run_folder import read_mask_run
from ltx.main.runs.tables import read_summary
from ltx.main.segmentation_eval.evaluator import PROTOCOL as SEGMENTATION
from ltx.main.segmentation_eval.metrics import readings

EVALUATORS = {
    PERTURBATION: "main/perturbation_eval/run_perturbation_eval.py",
    SEGMENTATION: "main/segmentation_eval/run_segmentation_eval.py",
}


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        name: what the page calls it.
        renamed: the name was given on the command line.
        folder: where it lies.
        record: its run.json.
    """

    name: str
    renamed: bool
    folder: Path
    record: dict[str, Any]

    @cached_property
    def names(self) -> list[str]:
        """Images of the run by position."""
        return read_names(self.folder / "manifest.csv")

    @property
    def explained_class(self) -> str:
        """`target` where the maps explain the true class, else `predicted`."""
        return "target" if self.record["options"].get("train_model_by_target_gt_class") else "predicted"


@dataclass(frozen=True)
class Result:
    """One results folder of a run.

    Attributes:
        run: whose.
        protocol: `perturbation` or `segmentation`.
        folder: where it lies.
        settings: of its summary.json, `class` being the class that is scored.
        index: (N,) positions in the run of the images that count.
        classes: (N,) class scored, -1 where the protocol scores none.
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
    """The runs of the command line, each `PATH` or `NAME=PATH`.

    Raises:
        UserError: a folder that is no run, or two of one name.
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
    """Every finished evaluation of a run.

    Raises:
        UserError: there is none (the message has the command that makes one), or one is damaged or belongs to
            other masks.
    """
    folders = sorted(path.parent for path in (run.folder / "results").glob("*/summary.json"))
    results = [result for folder in folders for result in _read_folder(run, folder)]
    if not results:
        script = (
            SEGMENTATION if run.record["dataset"]["kind"] in ("imagenet", "coco", "voc") else PERTURBATION
        )
        raise UserError(
            f"{run.folder} has no results; make them with 'python {EVALUATORS[script]} "
            f"{progress.display_path(run.folder)}'"
        )
    return results


def _read_folder(run: Run, folder: Path) -> Iterator[Result]:
    summary = read_summary(folder)
    protocol = summary.get("protocol")
    if protocol not in EVALUATORS:
        return
    again = f"delete it and run 'python {EVALUATORS[protocol]} {progress.display_path(run.folder)}'"
    if summary["run_hash"] != run.record["hash"]:
        raise UserError(f"{folder} scores masks that are no longer in {run.folder}; {again}")
    files = [file for file in unit_files(run.folder) if part_path(folder, file).is_file()]
    kept, header = _kept(folder / "per_image.csv")
    if not files:
        raise UserError(f"{folder} lacks its parts/, which the report is made from; {again}")
    parts = [read_part(part_path(folder, file)) for file in files]
    parts = [part for part in parts if len(part["index"])]
    if not parts:
        raise UserError(f"{folder} holds the scores of no image; {again}")
    index = np.concatenate([part["index"] for part in parts])
    rows = np.flatnonzero(np.isin(index, kept))
    if len(rows) != len(kept):
        raise UserError(f"{folder} is incomplete: per_image.csv lists images that no part holds; {again}")
    if protocol == SEGMENTATION and len(header) - 3 != parts[0]["values"].shape[-1]:
        raise UserError(f"{folder}/per_image.csv has other columns than its parts; {again}")
    better = {
        name: entry["higher_is_better"]
        for row in summary["rows"].values()
        for name, entry in row.items()
    }  # fmt: skip
    read = _perturbation if protocol == PERTURBATION else _segmentation
    measures = {
        variant: {name: measure.take(rows) for name, measure in found.items()}
        for variant, found in read(parts, header).items()
    }
    classes = np.concatenate([part.get("scored", np.full(len(part["index"]), -1)) for part in parts])[rows]
    yield Result(run, protocol, folder, _settings(run, summary), index[rows], classes, measures, better)


def _settings(run: Run, summary: dict) -> dict[str, Any]:
    """Settings with `class` resolved to `target` or `predicted`."""
    settings = summary["settings"]
    scored = settings.get("class") or settings.get("score_class")
    return settings | {"class": run.explained_class if scored == "explained" else scored}


def _kept(path: Path) -> tuple[np.ndarray, list[str]]:
    """Positions of the images that a per_image.csv lists, each once, and its columns."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            positions = np.unique([int(row["index"]) for row in reader])
            return positions, list(reader.fieldnames or ())
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}; delete its folder and evaluate again") from error


def _perturbation(parts: list[dict], header: list[str]) -> dict[str, dict[str, Measure]]:
    known = {metric.name: metric for metric in METRICS}
    metrics: list[Metric] = [known[name] for name in parts[0]["metrics"].tolist() if name in known]
    columns = parts[0]["metrics"].tolist()
    values = np.concatenate([part["values"] for part in parts], axis=1)
    details = {
        metric.name: np.concatenate([detail_of(part, metric) for part in parts], axis=1)
        for metric in metrics
        if detail_of(parts[0], metric) is not None
    }
    return {
        variant: {
            metric.name: PerturbationMeasure(
                metric,
                values[v, :, columns.index(metric.name)],
                details[metric.name][v] if metric.name in details else None,
            )
            for metric in metrics
        }
        for v, variant in enumerate(parts[0]["variants"].tolist())
    }


def _segmentation(parts: list[dict], header: list[str]) -> dict[str, dict[str, Measure]]:
    values = np.concatenate([part["values"] for part in parts], axis=1)
    columns, found = header[3:], {}
    for v, variant in enumerate(parts[0]["variants"].tolist()):
        found[variant] = {}
        for reading in readings(has_void=True):
            if not set(reading.columns) <= set(columns):
                continue
            for metric in reading.metrics:
                places = {name: columns.index(name + reading.suffix) for name in metric.columns}
                found[variant][metric.name + reading.suffix] = SegmentationMeasure(
                    metric, {name: values[v, :, place] for name, place in places.items()}
                )
    return found


def safe_name(text: str) -> bool:
    """Whether a variant's name can be part of a file's name without leaving its folder."""
    return re.fullmatch(r"[\w.+-]+", text) is not None and not text.startswith(".")
