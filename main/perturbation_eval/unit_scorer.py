"""Perturbation metrics of the maps of mask files, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.build import BAD, groups
from ltx.main.common.devices import default_batch, pins, to_device
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import Metric
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.runs.mask_files import MaskUnit
from ltx.models.explainee import Explainee

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

    @property
    def batch_size(self) -> int:
        """Images that are read and scored at once."""
        return max(1, self._forward_batch // 4)

    @property
    def _forward_batch(self) -> int:
        return self.options.batch_size or default_batch(self.device)

    def score(self, unit: MaskUnit, batches: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Yield all metrics of all variants for each batch of B rows of a mask file.

        `scored` (B,), `values` (variants, B, metrics), `detail_<metric>` (variants, B, K) of the metrics that
        have details, and `unread` (B,), why an image can no longer be read, else "".
        """
        scored = class_to_score(unit, self.score_class)
        positions = [[self.chosen[i] for i in unit.index[rows]] for rows in batches]
        loader = groups(
            self.images, positions, self.options.num_workers, pins(self.device),
            self.options.on_bad_image == "skip",
        )  # fmt: skip
        for rows, read in zip(batches, loader, strict=True):
            unread = np.array(read.get(BAD, [""] * len(rows)), dtype=str)
            found = self._score_batch(unit, scored[rows], rows, read)
            yield found | {"scored": scored[rows], "unread": unread}

    def _score_batch(
        self, unit: MaskUnit, classes: np.ndarray, rows: np.ndarray, read: dict
    ) -> dict[str, np.ndarray]:
        """Return values and details (variants, B, ...) of some rows of a unit, with their images."""
        names = [self.images.names[index] for index in read["index"].tolist()]
        batch = ImageBatch(
            self.explainee, to_device(read["image"], self.device), torch.from_numpy(classes).to(self.device),
            self.options.fill, self._forward_batch, names,
        )  # fmt: skip
        found = []
        for variant in unit.variants:
            maps = unit.maps(variant, self.explainee.input_size, rows)
            shown = unit.shown(variant, maps).to(self.device)
            found.append(self._measure(MapView(batch, maps.to(self.device), shown)))
        return {key: np.stack([one[key] for one in found]) for key in found[0]}

    def _measure(self, view: MapView) -> dict[str, np.ndarray]:
        values = [metric.per_image(view).double().cpu().numpy() for metric in self.metrics]
        found = {"values": np.stack(values, axis=1)}
        for metric in self.metrics:
            detail = metric.detail(view)
            if detail is not None:
                found[_DETAIL + metric.name] = detail.float().cpu().numpy()
        return found


def detail_of(scores: dict[str, np.ndarray], metric: Metric) -> np.ndarray | None:
    """Return the details (variants, N, K) of a metric, None if it has none."""
    return scores.get(_DETAIL + metric.name)


def class_to_score(unit: MaskUnit, score_class: str) -> np.ndarray:
    """Return the class (N,) that the maps are scored by.

    Raises:
        UserError: the true class is asked for and the images have no labels.
    """
    stored = {"explained": unit.classes, "target": unit.arrays.get("label")}
    classes = stored.get(score_class, unit.arrays.get("predicted"))
    if classes is None or classes.min(initial=0) < 0:
        raise UserError(f"--score-class {score_class}: the masks were made without that class of each image")
    return classes
