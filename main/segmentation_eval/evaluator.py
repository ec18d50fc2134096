"""From the mask files of a run folder to segmentation metrics, unit by unit."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.build import BAD, Tolerant, batches, rebuild
from ltx.datasets.manifest import from_manifest
from ltx.main.runs import evaluation, tables
from ltx.main.runs.mask_files import MaskUnit
from ltx.main.runs.run_folder import read_mask_run
from ltx.main.segmentation_eval.metrics import COUNTS, Reading, readings
from ltx.main.segmentation_eval.options import SegmentationOptions
from ltx.main.segmentation_eval.sheets import write_sheet_of
from ltx.models.registry import input_size

PROTOCOL = "segmentation"
_BATCH = 4


def evaluate(options: SegmentationOptions) -> dict[str, dict]:
    """Scores every mask file of `options.run_folder`, or this process's share of them.

    Writes `results/segmentation-<settings>/`: a part per mask file (what makes it go on after a kill), and,
    once all parts are there, `per_image.csv`, `summary.json` and a picture sheet per variant.

    Returns:
        `rows` of summary.json; empty while other shards are still at work.

    Raises:
        UserError: no run folder, no mask files, images that are no longer there or have no object masks.
    """
    run = read_mask_run(options.run_folder)
    images, chosen = _images_of(options, run)
    read_as = readings(images.has_void, options.voc_void)
    folder = _results_folder(options, run, images)

    def prepare():
        skip = options.on_bad_image == "skip"
        return lambda unit, _: score_unit(images, chosen, unit, read_as, options.num_workers, skip)

    columns = [column for reading in read_as for column in reading.columns]
    parts = evaluation.score_units(options, folder, run, PROTOCOL, prepare, columns)
    return {} if parts is None else _add_up(folder, options, run, images, chosen, read_as, parts)


def score_unit(
    images: ImageSet,
    chosen: list[int],
    unit: MaskUnit,
    read_as: list[Reading],
    num_workers: int = 0,
    skip_bad: bool = False,
) -> dict[str, np.ndarray]:
    """All columns of all variants for the images of one mask file.

    Args:
        images: the image set, with object masks.
        chosen: position in the set of each image of the run.
        unit: the maps.
        read_as: how the labels are read.
        num_workers: processes that read and score images.
        skip_bad: go on at an image that cannot be read.

    Returns:
        `index` (N,), `variants`, `values` (variants, N, columns), and `unread` (N,), why an image cannot be
        read any more, else "".
    """
    scores = _Scores(images, [chosen[index] for index in unit.index], unit, read_as, skip_bad)
    found = list(batches(scores, range(len(scores)), _BATCH, num_workers))
    values = torch.cat([batch["values"] for batch in found]).transpose(0, 1).numpy()
    unread = np.array([why for batch in found for why in batch["unread"]], dtype=str)
    return {"index": unit.index, "variants": np.array(unit.variants), "values": values, "unread": unread}


class _Scores(Dataset):
    """The columns of each image of a unit, (variants, columns), computed where the image is read."""

    def __init__(
        self,
        images: ImageSet,
        positions: list[int],
        unit: MaskUnit,
        read_as: list[Reading],
        skip_bad: bool = False,
    ):
        self.images, self.positions, self.unit, self.read_as = images, positions, unit, read_as
        self.source = Tolerant(images) if skip_bad else images

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor | str]:
        sample = self.source[self.positions[row]]
        labels, unread = sample["mask"].numpy(), sample.get(BAD, "")
        values = []
        for variant in self.unit.variants:
            saliency = self.unit.maps(variant, self.images.image_size, slice(row, row + 1))[0].numpy()
            values.append([value for r in self.read_as for value in r.per_image(labels, saliency)])
        return {"values": torch.tensor(values, dtype=torch.float64), "unread": unread}


def _images_of(options: SegmentationOptions, run: dict) -> tuple[ImageSet, list[int]]:
    """The image set of a run at the size of its maps, and the positions of the run's images in it."""
    described = run["dataset"]
    if options.segmentation_root is not None and "root" in described:
        described = described | {"root": str(options.segmentation_root), "labels": None}
    images = rebuild(described, tuple(run.get("input_size") or input_size(run["explainee"]["name"])))
    if not images.has_masks:
        raise UserError(
            f"{options.run_folder} explains images without object masks ({described['kind']} "
            f"{described.get('root') or ''}); make its masks with --dataset-type"
        )
    return images, from_manifest(Path(options.run_folder) / "manifest.csv", images)


def _results_folder(options: SegmentationOptions, run: dict, images: ImageSet) -> Path:
    """Named by the class that the maps explain, and what else was chosen."""
    settings = _explained_class(run)
    if images.has_void and options.voc_void != "both":
        settings += f"-void_{options.voc_void}"
    if options.exclude_manifest is not None:
        settings += f"-without-{options.exclude_manifest.stem}"
    return Path(options.run_folder) / "results" / f"{PROTOCOL}-{settings}"


def _add_up(
    folder: Path,
    options: SegmentationOptions,
    run: dict,
    images: ImageSet,
    chosen: list[int],
    read_as: list[Reading],
    parts: list[dict],
) -> dict:
    """Writes per_image.csv, summary.json and the sheets from all parts; returns the summary's rows."""
    index = np.concatenate([part["index"] for part in parts])
    values = np.concatenate([part["values"] for part in parts], axis=1)
    names, keep = evaluation.kept_images(options, index)
    variants = parts[0]["variants"].tolist()
    columns = [column for reading in read_as for column in reading.columns]
    tables.write_per_image(
        folder / "per_image.csv",
        ["index", "image", "variant", *columns],
        [
            [index[i], names[index[i]], variant, *map(_exact, columns, values[v, i].tolist())]
            for i in np.flatnonzero(keep)
            for v, variant in enumerate(variants)
        ],
    )
    metrics = [metric for reading in read_as for metric in reading.named_metrics]
    totals = np.array([_totals(read_as, of_variant) for of_variant in values[:, keep]])
    rows = tables.summary_rows(variants, metrics, totals, int(keep.sum()))
    settings = {
        "class": _explained_class(run),
        "threshold": "mean of the map",
        "void": options.voc_void if images.has_void else None,
        "excluded": int((~keep).sum()),
        "early_stop": bool(run["options"].get("early_stop", False)),
    }
    tables.write_summary(folder, PROTOCOL, settings, run["hash"], rows, candidates=run.get("candidates", {}))
    by = next(c for c, column in enumerate(columns) if column.startswith("F1"))
    for v, variant in enumerate(variants):
        write_sheet_of(folder, options.run_folder, variant, images, chosen, index[keep], values[v, keep, by])
    return rows


def _totals(read_as: list[Reading], values: np.ndarray) -> list[float]:
    """The metrics of all readings from the columns of all images, (N, columns)."""
    ends = np.cumsum([len(reading.columns) for reading in read_as])
    pieces = np.split(values, ends[:-1], axis=1)
    return [total for reading, piece in zip(read_as, pieces, strict=True) for total in reading.totals(piece)]


def _exact(column: str, value: float) -> int | str:
    """A cell of per_image.csv that gives back the same number: pixel counts whole, the rest in full."""
    return int(value) if column[:2] in COUNTS else repr(value)


def _explained_class(run: dict) -> str:
    return "target" if run["options"].get("train_model_by_target_gt_class") else "predicted"
