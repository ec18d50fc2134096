"""Bootstrap over images: 95% intervals of every figure, and of its difference from a reference row.

All rows and metrics share the resamples, so differences are paired. Intervals are percentiles (Efron 1979)
of whole recomputed figures, median curves and pixel totals included.
"""

from dataclasses import dataclass

import numpy as np

from ltx.main.common.progress import inner_bar
from ltx.main.perturbation_eval.metrics import Summary
from ltx.main.report_page.rows import Comparison, Row, true_row

LEVEL = 0.95
# Sums of the same numbers in another order differ by less.
_ROUNDING = 1e-9
AHEAD, SAME, BEHIND = "ahead", "level", "behind"


@dataclass(frozen=True)
class Difference:
    """Difference between the reference and another row.

    Attributes:
        value: positive where the reference is better, whichever direction the metric has.
        low, high: its interval; None with fewer than two images.
        verdict: `ahead` or `behind` if the interval excludes zero, else `level`; of the reference.
    """

    value: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Statistics:
    """Figures of a comparison, all by label and metric.

    Attributes:
        figures: mean, n and curve.
        intervals: (low, high), where there is a figure and more than one image.
        differences: of the reference to every other row, for metrics that rank.
        losses: of the true model's maps to those of a randomised one, by its label.
        reference: label of the reference.
        n_resamples: resamples drawn.
        seed: of the resamples.
    """

    figures: dict[str, dict[str, Summary]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    differences: dict[str, dict[str, Difference]]
    losses: dict[str, dict[str, Difference]]
    reference: str
    n_resamples: int
    seed: int


def draw_counts(n_images: int, n_resamples: int, seed: int) -> np.ndarray:
    """Return how often each image is drawn, int (B, N), with replacement."""
    drawn = np.random.default_rng(seed).integers(0, n_images, (n_resamples, n_images))
    offsets = np.arange(n_resamples)[:, None] * n_images
    flat = np.bincount((drawn + offsets).ravel(), minlength=n_resamples * n_images)
    return flat.reshape(n_resamples, n_images)


def analyse(comparison: Comparison, reference: Row, n_resamples: int, seed: int) -> Statistics:
    """Return figures, intervals and differences of a comparison."""
    counts = draw_counts(len(comparison.images), n_resamples, seed)
    figures, draws = {}, {}
    for row in inner_bar(comparison.rows, desc=f"bootstrap, {comparison.protocol}", unit="row"):
        figures[row.label] = {name: measure.summary() for name, measure in row.measures.items()}
        draws[row.label] = {
            name: measure.resampled(counts)
            for name, measure in row.measures.items()
            if figures[row.label][name].mean is not None and len(comparison.images) > 1
        }
    intervals = {
        label: {name: interval(values) for name, values in by_metric.items()}
        for label, by_metric in draws.items()
    }
    differences = {
        row.label: _differences(comparison, figures, draws, reference.label, row.label)
        for row in comparison.rows
        if row.label != reference.label
    }
    losses = {
        row.label: _differences(comparison, figures, draws, true.label, row.label)
        for row in comparison.rows
        if row.randomised and (true := true_row(comparison, row)) is not None
    }
    return Statistics(figures, intervals, differences, losses, reference.label, n_resamples, seed)


def _differences(comparison: Comparison, figures, draws, reference: str, label: str) -> dict[str, Difference]:
    found = {}
    for name, higher in comparison.better.items():
        mean, other = (
            figures[one][name].mean if name in figures[one] else None for one in (reference, label)
        )
        if higher is None or mean is None or other is None:
            continue
        sign, low, high, verdict = 1 if higher else -1, None, None, SAME
        if name in draws[reference]:
            low, high = interval(sign * (draws[reference][name] - draws[label][name]))
            verdict = AHEAD if low > _ROUNDING else BEHIND if high < -_ROUNDING else SAME
        found[name] = Difference(sign * (mean - other), low, high, verdict)
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval of resampled figures (B,), without those that no image counts for."""
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
