"""Segmentation metrics of a run folder, from its mask files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.build import BAD, Tolerant, groups, rebuild
from ltx.datasets.manifest import from_manifest
from ltx.main.runs import evaluation, tables
from ltx.main.runs.explainee_input import size_of_run
from ltx.main.runs.mask_files import MaskUnit
from ltx.main.runs.run_folder import read_mask_run
from ltx.main.runs.run_record import MaskRunRecord
from ltx.main.segmentation_eval.metrics import COUNTS, VoidPolicy, void_policies
from ltx.main.segmentation_eval.options import SegmentationOptions
from ltx.main.segmentation_eval.sheets import write_sheet_of

PROTOCOL = "segmentation"


def evaluate(options: SegmentationOptions) -> dict[str, dict]:
    """Score every mask file of `options.run_folder`, or this process's share of them.

    Writes `results/segmentation-<settings>/`: `parts/`, from which a killed evaluation resumes, and, once all
    parts are there, `per_image.csv`, `summary.json` and a picture sheet per variant.

    Returns:
        `rows` of summary.json; empty while other shards are still at work.

    Raises:
        UserError: no run folder, no mask files, images that are no longer there or have no object masks.
    """
    run = read_mask_run(options.run_folder)
    images, chosen = _images_of(options, run)
    policies = void_policies(images.has_void, options.voc_void)
    scorer = UnitScorer(images, chosen, policies, options.num_workers, options.on_bad_image == "skip")
    folder = _results_folder(options, run, images)
    scores = evaluation.score_units(options, folder, run, PROTOCOL, lambda: scorer, scorer.columns)
    return {} if scores is None else _add_up(folder, options, run, scorer, scores)


@dataclass(frozen=True)
class UnitScorer:
    """Segmentation metrics of the maps of mask files.

    Attributes:
        images: the image set, with object masks.
        chosen: position in the set of each image of the run.
        policies: treatment of void pixels.
        num_workers: processes that read and score images.
        skip_bad: skip images that cannot be read.
        batch_size: images that a process scores at once.
    """

    images: ImageSet
    chosen: Sequence[int]
    policies: list[VoidPolicy]
    num_workers: int = 0
    skip_bad: bool = False
    batch_size: int = 4

    @property
    def columns(self) -> list[str]:
        """Names of the columns of all policies."""
        return [column for policy in self.policies for column in policy.columns]

    def score(self, unit: MaskUnit, batches: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Yield all columns of all variants for each batch of B rows of a mask file.

        `values` (variants, B, columns), and `unread` (B,), why an image can no longer be read, else "".
        """
        scores = _Scores(self, unit)
        for found in groups(scores, [rows.tolist() for rows in batches], self.num_workers):
            values = found["values"].transpose(0, 1).numpy()
            yield {"values": values, "unread": np.array(found["unread"], dtype=str)}


class _Scores(Dataset):
    """The columns of each image of a unit, (variants, columns), computed where the image is read."""

    def __init__(self, scorer: UnitScorer, unit: MaskUnit):
        self.scorer, self.unit = scorer, unit
        self.source = Tolerant(scorer.images) if scorer.skip_bad else scorer.images

    def __len__(self) -> int:
        return len(self.unit.index)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor | str]:
        sample, size = self.source[self.scorer.chosen[self.unit.index[row]]], self.scorer.images.image_size
        labels, unread = sample["mask"].numpy(), sample.get(BAD, "")
        values = []
        for variant in self.unit.variants:
            saliency = self.unit.maps(variant, size, slice(row, row + 1))[0].numpy()
            values.append([x for policy in self.scorer.policies for x in policy.per_image(labels, saliency)])
        return {"values": torch.tensor(values, dtype=torch.float64), "unread": unread}


def _images_of(options: SegmentationOptions, run: MaskRunRecord) -> tuple[ImageSet, list[int]]:
    """Return the image set of a run at the size of its maps, and the positions of the run's images in it."""
    described = run.dataset
    if options.segmentation_root is not None and "root" in described:
        described = described | {"root": str(options.segmentation_root), "labels": None}
    images = rebuild(described, size_of_run(run))
    if not images.has_masks:
        raise UserError(
            f"{options.run_folder} explains images without object masks ({described['kind']} "
            f"{described.get('root') or ''}); make its masks with --dataset-type"
        )
    return images, from_manifest(Path(options.run_folder) / "manifest.csv", images)


def _results_folder(options: SegmentationOptions, run: MaskRunRecord, images: ImageSet) -> Path:
    void = f"void_{options.voc_void}" if images.has_void and options.voc_void != "both" else ""
    return evaluation.results_folder(options, PROTOCOL, run.explained_class, void)


def _add_up(
    folder: Path,
    options: SegmentationOptions,
    run: MaskRunRecord,
    scorer: UnitScorer,
    scores: dict[str, np.ndarray],
) -> dict:
    """Write per_image.csv, summary.json and the sheets; return the rows of the summary."""
    index, values, variants = scores["index"], scores["values"], scores["variants"].tolist()
    names, keep = evaluation.kept_images(options, index)
    columns, images = scorer.columns, scorer.images
    tables.write_per_image(
        folder / "per_image.csv",
        ["index", "image", "variant", *columns],
        [
            [index[i], names[index[i]], variant, *map(_exact, columns, values[v, i].tolist())]
            for i in np.flatnonzero(keep)
            for v, variant in enumerate(variants)
        ],
    )
    metrics = [metric for policy in scorer.policies for metric in policy.named_metrics]
    totals = np.array([_totals(scorer.policies, of_variant) for of_variant in values[:, keep]])
    rows = tables.summary_rows(variants, metrics, totals, int(keep.sum()))
    settings = {
        "class": run.explained_class,
        "threshold": "mean of the map",
        "void": options.voc_void if images.has_void else None,
        "excluded": int((~keep).sum()),
        "early_stop": run.early_stop,
    }
    tables.write_summary(folder, PROTOCOL, settings, run.hash, rows, candidates=run.candidates)
    f1 = values[:, keep, next(c for c, column in enumerate(columns) if column.startswith("F1"))]
    for variant, ranks in zip(variants, f1, strict=True):
        write_sheet_of(folder, options.run_folder, variant, images, scorer.chosen, index[keep], ranks)
    return rows


def _totals(policies: list[VoidPolicy], values: np.ndarray) -> list[float]:
    """Return the metrics of all policies from the columns of all images, (N, columns)."""
    ends = np.cumsum([len(policy.columns) for policy in policies])
    split = np.split(values, ends[:-1], axis=1)
    return [total for policy, own in zip(policies, split, strict=True) for total in policy.totals(own)]


def _exact(column: str, value: float) -> int | str:
    """Return a cell of per_image.csv that reads back as the same number."""
    return int(value) if column[:2] in COUNTS else repr(value)
