"""Scores the maps of one mask file, piece by piece, so that a killed evaluation loses minutes at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.build import BAD, batches
from ltx.main.common.devices import default_batch, pins, to_device
from ltx.main.common.progress import inner_bar
from ltx.main.perturbation_eval.map_view import MapView
from ltx.main.perturbation_eval.metrics import Metric
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.runs import evaluation
from ltx.main.runs.mask_files import MaskUnit
from ltx.models.explainee import Explainee, read_class

_DETAIL = "detail_"


@dataclass(frozen=True)
class UnitScorer:
    """Metrics of the maps of mask files.

    Attributes:
        explainee: images to logits, on the device.
        images: the image set.
        chosen: position in the set of each image of the run.
        metrics: what to measure.
        score_class: "explained", "target" or "predicted".
        options: fill, batch size, workers.
        device: where to compute.
    """

    explainee: Explainee
    images: ImageSet
    chosen: Sequence[int]
    metrics: tuple[Metric, ...]
    score_class: str
    options: PerturbationOptions
    device: torch.device

    def score(self, unit: MaskUnit, pieces: Path) -> dict[str, np.ndarray]:
        """All metrics of all variants for the images of one mask file.

        Args:
            unit: the maps.
            pieces: folder for what is done already.

        Returns:
            `index` and `scored` (N,), `variants`, `values` (variants, N, metrics), and
            `detail_<metric>` (variants, N, K) of the metrics that have details; `unread` (N,), why an image
            cannot be read any more, else "".
        """
        scored = class_to_score(unit, self.score_class)
        n, step = len(unit.index), max(1, self.batch_size // 4)
        pieces_of = {
            start: pieces / f"{start:06d}-{min(start + step, n) - 1:06d}.npz" for start in range(0, n, step)
        }
        todo = [start for start, path in pieces_of.items() if not self._is_done(path)]
        rows = [row for start in todo for row in range(start, min(start + step, n))]
        positions = [self.chosen[unit.index[row]] for row in rows]
        loader = batches(
            self.images, positions, step, self.options.num_workers, pins(self.device),
            self.options.on_bad_image == "skip",
        )  # fmt: skip
        with inner_bar(total=n, initial=n - len(rows), unit="image") as bar:
            for start, batch in zip(todo, loader, strict=True):
                arrays = self._score_batch(unit, scored, start, batch)
                arrays["unread"] = np.array([batch.get(BAD, [""] * len(batch["index"]))], dtype=str)
                evaluation.write_part(pieces_of[start], arrays | {"metrics": np.array(self._names)})
                bar.update(len(batch["index"]))
        parts = [evaluation.read_part(path) for path in pieces_of.values()]
        arrays = {
            key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0] if key != "metrics"
        }
        arrays["unread"] = arrays["unread"][0]
        return {"index": unit.index, "scored": scored, "variants": np.array(unit.variants)} | arrays

    def _is_done(self, path: Path) -> bool:
        """Whether a piece is there and was scored by these metrics."""
        return path.is_file() and evaluation.read_part(path)["metrics"].tolist() == self._names

    @property
    def _names(self) -> list[str]:
        return [metric.name for metric in self.metrics]

    @property
    def batch_size(self) -> int:
        """Images that go through the explainee at once."""
        return self.options.batch_size or default_batch(self.device)

    def _score_batch(
        self, unit: MaskUnit, scored: np.ndarray, start: int, batch: dict
    ) -> dict[str, np.ndarray]:
        """Values and details (variants, B, ...) of the images from row `start` of a unit on."""
        rows = slice(start, start + len(batch["index"]))
        pixels, classes = (
            to_device(batch["image"], self.device),
            torch.from_numpy(scored[rows]).to(self.device),
        )
        unmasked, of_images = read_class(self.explainee, pixels, classes), {}
        names = [self.images.names[index] for index in batch["index"].tolist()]
        found = []
        for variant in unit.variants:
            maps = unit.maps(variant, self.explainee.input_size, rows)
            shown = unit.shown(variant, maps).to(self.device)
            view = MapView(
                self.explainee, pixels, classes, maps.to(self.device), shown, unmasked, self.options.fill,
                self.batch_size, names, of_images,
            )  # fmt: skip
            found.append(self._measure(view))
        return {key: np.stack([one[key] for one in found]) for key in found[0]}

    def _measure(self, view: MapView) -> dict[str, np.ndarray]:
        values = [metric.per_image(view).double().cpu().numpy() for metric in self.metrics]
        found = {"values": np.stack(values, axis=1)}
        for metric in self.metrics:
            detail = metric.detail(view)
            if detail is not None:
                found[_DETAIL + metric.name] = detail.float().cpu().numpy()
        return found


def detail_of(part: dict[str, np.ndarray], metric: Metric) -> np.ndarray | None:
    """Details (variants, N, K) of a metric in a part, where it has any."""
    return part.get(_DETAIL + metric.name)


def class_to_score(unit: MaskUnit, score_class: str) -> np.ndarray:
    """Class (N,) that the maps are scored by.

    Raises:
        UserError: the true class is asked for and the images have no labels.
    """
    stored = {"explained": unit.classes, "target": unit.arrays.get("label")}
    classes = stored.get(score_class, unit.arrays.get("predicted"))
    if classes is None or classes.min(initial=0) < 0:
        raise UserError(f"--score-class {score_class}: the masks were made without that class of each image")
    return classes
