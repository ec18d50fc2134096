"""Metrics of one row of a table, from per-image values, for all images or for a bootstrap's resamples.

A resample is a row of counts: how often each of the N images was drawn. Means weight the values by them; AIC
and SIC use the median curve of the resample, PA and mIoU its pixel totals, as the evaluators do.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np

from ltx.main.perturbation_eval.information import N_POINTS, curve_of
from ltx.main.perturbation_eval.metrics import InformationCurve, Metric, Summary

# Every fifth place of resampled information curves, which moves an area by under 0.1 points.
_PLACES = np.arange(0, N_POINTS + 1, 5)


class Measure(Protocol):
    """One metric of one row.

    Attributes:
        per_image: (N,), NaN where an image does not count.
    """

    @property
    def per_image(self) -> np.ndarray: ...

    def take(self, positions: np.ndarray) -> Self:
        """Return the same of some of the images, in that order."""

    def summary(self) -> Summary:
        """Return the figure of the tables, as the evaluator computes it."""

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """Return the figure (B,) of each resample (B, N); NaN if none of its images counts."""


@dataclass(frozen=True)
class PerturbationMeasure:
    """A perturbation metric.

    Attributes:
        metric: the metric.
        per_image: (N,).
        details: (N, K), points of information curves.
        whole: the evaluator's figure of all N images.
    """

    metric: Metric
    per_image: np.ndarray
    details: np.ndarray | None = None
    whole: Summary | None = None

    def take(self, positions: np.ndarray) -> Self:
        """See `Measure`."""
        details = None if self.details is None else self.details[positions]
        whole = self.whole if np.array_equal(np.sort(positions), np.arange(len(self.per_image))) else None
        return replace(self, per_image=self.per_image[positions], details=details, whole=whole)

    def summary(self) -> Summary:
        """See `Measure`. Only all images together have a removal curve."""
        return self.whole or self.metric.summarise(self.per_image, self.details)

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """See `Measure`."""
        if isinstance(self.metric, InformationCurve):
            counted = np.isfinite(self.details).all(axis=1)
            if not counted.any():
                return np.full(len(counts), np.nan)
            curves = np.stack([curve_of(points)[1][_PLACES] for points in self.details[counted]])
            medians = weighted_medians(curves, counts[:, counted])
            return 100 * np.trapezoid(medians, _PLACES / N_POINTS, axis=1)
        return weighted_mean(self.per_image, counts)


@dataclass(frozen=True)
class SegmentationMeasure:
    """A segmentation metric.

    Attributes:
        metric: of `segmentation_eval.metrics`.
        columns: (N,) by name.
    """

    metric: Any
    columns: dict[str, np.ndarray]

    @cached_property
    def per_image(self) -> np.ndarray:
        """(N,), the metric of each image alone."""
        n = len(next(iter(self.columns.values())))
        return np.array([self._total(slice(i, i + 1)) for i in range(n)])

    def _total(self, rows: slice) -> float:
        return self.metric.total({name: values[rows] for name, values in self.columns.items()})

    def take(self, positions: np.ndarray) -> Self:
        """See `Measure`."""
        return replace(self, columns={name: values[positions] for name, values in self.columns.items()})

    def summary(self) -> Summary:
        """See `Measure`."""
        n = len(next(iter(self.columns.values())))
        return Summary(self._total(slice(None)) if n else None, n)

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """See `Measure`."""
        if len(self.columns) == 1:
            return weighted_mean(next(iter(self.columns.values())), counts)
        sums = {name: counts @ values for name, values in self.columns.items()}
        return np.array(
            [
                self.metric.total({name: total[[b]] for name, total in sums.items()})
                for b in range(len(counts))
            ]
        )


def weighted_mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return means (B,) of values (N,) under counts (B, N); NaN values do not count."""
    counted, counts = np.isfinite(values), counts.astype(np.float64)
    total = counts @ counted.astype(np.float64)
    sums = counts @ np.where(counted, values, 0.0)
    return np.divide(sums, total, out=np.full(len(counts), np.nan), where=total > 0)


def weighted_medians(curves: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return medians (B, K) of curves (N, K) under counts (B, N); NaN if none is drawn."""
    n = counts.sum(axis=1)
    # Of an even number of draws the median lies halfway between the two in the middle.
    lower, upper = (n + 1) // 2, n // 2 + 1
    medians = np.empty((len(counts), curves.shape[1]))
    by_curve = np.ascontiguousarray(counts.T.astype(np.int16))
    for k, values in enumerate(curves.T):
        order = np.argsort(values, kind="stable")
        reached, ranked = np.cumsum(by_curve[order], axis=0, dtype=np.int16), values[order]
        # The first curve, from below, with which the draws reach each rank.
        middle = [np.minimum((reached < rank).sum(axis=0), len(order) - 1) for rank in (lower, upper)]
        medians[:, k] = ranked[middle].mean(axis=0)
    medians[n == 0] = np.nan
    return medians
