"""Bootstrap over images: 95% intervals of every figure, and of its difference to a reference row.

The same resamples serve every row and metric, so differences are paired: an image that is drawn is drawn for
both rows. Intervals are percentiles (Efron 1979) of whole recomputed figures, median curves and pixel totals
included.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ltx.main.common.progress import inner_bar
from ltx.main.perturbation_eval.metrics import Summary
from ltx.main.report_page.rows import Comparison, Row, true_row

LEVEL = 0.95
# Sums of the same numbers in another order differ by less.
_ROUNDING = 1e-9
AHEAD, SAME, BEHIND = "ahead", "level", "behind"


@dataclass(frozen=True)
class Difference:
    """How much better the reference is than another row.

    Attributes:
        value: positive where the reference is better, whichever direction the metric has.
        low, high: its interval; None with fewer than two images.
        verdict: `ahead`, `level` or `behind`: whether the interval excludes zero; of the reference.
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
        seed: what they were drawn from.
    """

    figures: dict[str, dict[str, Summary]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    differences: dict[str, dict[str, Difference]]
    losses: dict[str, dict[str, Difference]]
    reference: str
    n_resamples: int
    seed: int

    def verdicts(self, label: str) -> dict[str, int]:
        """On how many metrics the reference is ahead of, level with, or behind a row."""
        found = [difference.verdict for difference in self.differences[label].values()]
        return {verdict: found.count(verdict) for verdict in (AHEAD, SAME, BEHIND)}


def draw_counts(n_images: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each image is drawn, int (B, N), with replacement."""
    drawn = np.random.default_rng(seed).integers(0, n_images, (n_resamples, n_images))
    offsets = np.arange(n_resamples)[:, None] * n_images
    flat = np.bincount((drawn + offsets).ravel(), minlength=n_resamples * n_images)
    return flat.reshape(n_resamples, n_images)


def analyse(comparison: Comparison, reference: Row, n_resamples: int, seed: int) -> Statistics:
    """Figures, intervals and differences of a comparison."""
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
    """Percentile interval of resampled figures (B,); those of which no image counts are left out."""
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def strongest_rival(comparison: Comparison, statistics: Statistics) -> Row | None:
    """The row of the best mean rank over the metrics that the reference and all rivals have.

    Rivals are other methods, where there are any, else other runs, else other rows; maps of a randomised
    model and the true object masks are none.
    """
    reference = comparison.row(statistics.reference)
    rows = [row for row in comparison.rows if row is not reference and not row.randomised and not row.oracle]
    rows = [row for row in rows if row.run is not reference.run] or rows
    rows = [row for row in rows if row.method != reference.method] or rows
    if not rows:
        return None
    ranks = np.zeros(len(rows))
    for name, higher in comparison.better.items():
        means = [statistics.figures[row.label][name].mean if name in row.measures else None for row in rows]
        if higher is not None and None not in means:
            ranks += rankdata(np.array(means) * (-1 if higher else 1))
    return rows[int(np.argmin(ranks))]
