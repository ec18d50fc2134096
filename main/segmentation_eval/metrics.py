"""The segmentation metrics, one small class each: columns of one image, and a figure from those of all.

To add one: a class with `name`, `higher_is_better`, `columns`, `per_image(sample)` and `total(columns)`, and
an entry in `METRICS`. per_image.csv contains the columns, so the figures can be recomputed from it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.metrics import average_precision_score

from ltx.datasets.base import IGNORED, VOID

COUNTS = ("TP", "FP", "FN", "TN")


@dataclass
class Sample:
    """One image's labels and saliency map.

    Attributes:
        labels: (H, W), 1 on the object, 0 elsewhere, -1 ignored.
        saliency: (H, W), of any scale.
    """

    labels: np.ndarray
    saliency: np.ndarray

    @cached_property
    def scaled(self) -> np.ndarray:
        """The map scaled to [0, 1], float64 (H, W); a constant map is 0."""
        values = self.saliency.astype(np.float64)
        low, high = values.min(), values.max()
        return (values - low) / (high - low) if high > low else np.zeros_like(values)

    @cached_property
    def foreground(self) -> np.ndarray:
        """The map above its own mean, bool (H, W); a constant map is all background."""
        return self.scaled > self.scaled.mean()

    @cached_property
    def counted(self) -> np.ndarray:
        """Pixels that are not ignored, bool (H, W)."""
        return self.labels != IGNORED

    @cached_property
    def counts(self) -> dict[str, float]:
        """Numbers of true and false positive and negative pixels."""
        found, wanted = self.foreground[self.counted], self.labels[self.counted] == 1
        return {
            "TP": int((found & wanted).sum()),
            "FP": int((found & ~wanted).sum()),
            "FN": int((~found & wanted).sum()),
            "TN": int((~found & ~wanted).sum()),
        }


class PixelAccuracy:
    """PA: share of correct pixels over the whole set, in percent."""

    name, higher_is_better, columns = "PA", True, COUNTS

    def per_image(self, sample: Sample) -> dict[str, float]:
        """Return TP, FP, FN and TN of an image."""
        return sample.counts

    def total(self, columns: dict[str, np.ndarray]) -> float:
        """Return the figure from the columns (N,) of all images."""
        tp, fp, fn, tn = (columns[name].sum() for name in COUNTS)
        return _percent(tp + tn, tp + fp + fn + tn)


class MeanIou:
    """mIoU: intersection over union over the whole set, mean of foreground and background, in percent.

    A class that is in neither labels nor maps counts 0 (released).
    """

    name, higher_is_better, columns = "mIoU", True, COUNTS

    def per_image(self, sample: Sample) -> dict[str, float]:
        """Return TP, FP, FN and TN of an image."""
        return sample.counts

    def total(self, columns: dict[str, np.ndarray]) -> float:
        """Return the figure from the columns (N,) of all images."""
        tp, fp, fn, tn = (columns[name].sum() for name in COUNTS)
        return (_percent(tp, tp + fp + fn) + _percent(tn, tn + fp + fn)) / 2


class _MeanOfImages:
    """A figure of each image in percent, averaged over the images."""

    columns: tuple[str, ...]
    higher_is_better = True

    def total(self, columns: dict[str, np.ndarray]) -> float:
        """Return the figure from the columns (N,) of all images."""
        return float(columns[self.columns[0]].mean())


class MeanAveragePrecision(_MeanOfImages):
    """mAP: average precision over the scores [1 - S, S] against both one-hot labels, averaged over images."""

    name, columns = "mAP", ("AP",)

    def per_image(self, sample: Sample) -> dict[str, float]:
        """Return AP of an image; 0 where every pixel is ignored (released)."""
        scores, wanted = sample.scaled[sample.counted], sample.labels[sample.counted] == 1
        if not wanted.size:
            return {"AP": 0.0}
        ap = average_precision_score(np.concatenate([~wanted, wanted]), np.concatenate([1 - scores, scores]))
        return {"AP": 100 * float(ap)}


class ReleasedAveragePrecision(_MeanOfImages):
    """mAP_released: the same in float32, as the published column was computed.

    There 1 - S merges scores below 6e-8, which then count as ties. A constant map scores 0 on both sides.
    """

    name, columns = "mAP_released", ("AP_released",)

    def per_image(self, sample: Sample) -> dict[str, float]:
        """AP of an image; 0 where every pixel is ignored."""
        values = sample.saliency.astype(np.float32)
        low, high = values.min(), values.max()
        scores = (values - low) / (high - low) if high > low else np.full_like(values, np.nan)
        both = np.nan_to_num(np.stack([1 - scores, scores]))[:, sample.counted]
        wanted = sample.labels[sample.counted] == 1
        if not wanted.size:
            return {"AP_released": 0.0}
        ap = average_precision_score(np.concatenate([~wanted, wanted]), both.ravel())
        return {"AP_released": 100 * float(ap)}


class MeanF1(_MeanOfImages):
    """mF1: F1 of the foreground of each image, averaged over images; 0 without a true positive."""

    name, columns = "mF1", ("F1",)

    def per_image(self, sample: Sample) -> dict[str, float]:
        """Return F1 of an image."""
        counts = sample.counts
        return {"F1": _percent(2 * counts["TP"], 2 * counts["TP"] + counts["FP"] + counts["FN"])}


class ReleasedF1(_MeanOfImages):
    """mF1_released: F1 of the foreground of each row of pixels, averaged over all rows (released).

    A row without foreground counts 0.
    """

    name, columns = "mF1_released", ("F1_released",)

    def per_image(self, sample: Sample) -> dict[str, float]:
        """Return the mean F1 of an image's rows."""
        found, wanted = sample.foreground & sample.counted, (sample.labels == 1)
        hits, size = (found & wanted).sum(1), found.sum(1) + wanted.sum(1)
        return {"F1_released": float(100 * np.mean(2 * hits / np.maximum(size, 1)))}


_CORRECT = (PixelAccuracy(), MeanAveragePrecision(), MeanIou(), MeanF1())
METRICS = (*_CORRECT, ReleasedF1(), ReleasedAveragePrecision())


@dataclass(frozen=True)
class Named:
    """A metric's name in tables, and its better direction."""

    name: str
    higher_is_better: bool


@dataclass(frozen=True)
class VoidPolicy:
    """One treatment of void pixels, with the metrics that are computed under it.

    Attributes:
        void_as: label that void pixels get.
        metrics: the metrics.
        suffix: appended to the name of each metric and column.
    """

    void_as: int
    metrics: tuple
    suffix: str = ""

    @property
    def columns(self) -> list[str]:
        """Names of the columns, each once, with the suffix."""
        names = dict.fromkeys(column for metric in self.metrics for column in metric.columns)
        return [column + self.suffix for column in names]

    @property
    def named_metrics(self) -> list[Named]:
        """The metrics under their names in tables."""
        return [Named(metric.name + self.suffix, metric.higher_is_better) for metric in self.metrics]

    def per_image(self, labels: np.ndarray, saliency: np.ndarray) -> list[float]:
        """Return the columns of one image with labels (H, W) and map (H, W)."""
        sample = Sample(np.where(labels == VOID, self.void_as, labels), saliency)
        values = {}
        for metric in self.metrics:
            if not values.keys() >= set(metric.columns):
                values |= metric.per_image(sample)
        return [values[column.removesuffix(self.suffix)] for column in self.columns]

    def totals(self, values: np.ndarray) -> list[float]:
        """Return the metrics from the columns of all images, (N, columns)."""
        names = [column.removesuffix(self.suffix) for column in self.columns]
        columns = dict(zip(names, values.T, strict=True))
        return [metric.total(columns) for metric in self.metrics]


def void_policies(has_void: bool, voc_void: str = "both") -> list[VoidPolicy]:
    """Return the treatments of void pixels: as foreground (released), ignored, or both.

    The released F1 and AP come with the released treatment alone.
    """
    both = {
        "foreground": VoidPolicy(1, METRICS),
        "ignore": VoidPolicy(IGNORED, _CORRECT, "_void_ignored"),
    }
    if not has_void:
        return [both["foreground"]]
    return [policy for name, policy in both.items() if voc_void in (name, "both")]


def _percent(part: float, whole: float) -> float:
    return 100 * float(part) / float(whole) if whole else 0.0
