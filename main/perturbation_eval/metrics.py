"""The perturbation metrics, one small class each; what they share is computed once per batch.

To add one: a class of `Metric` with `name`, `higher_is_better` and `per_image(view)`, and an entry in
`METRICS`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltx.main.common.names import choose_names
from ltx.main.perturbation_eval.curves import N_STEPS, auc
from ltx.main.perturbation_eval.information import median_curve, performance_curves, point_auc, points
from ltx.main.perturbation_eval.map_view import MapView
from ltx.main.perturbation_eval.rise_curves import rise_auc, rise_curve

FAST, ALL = "fast", "all"


@dataclass(frozen=True)
class Summary:
    """One metric over all images of a variant.

    Attributes:
        mean: the figure of the tables; None if no image counts.
        n: images that count.
        curve: the curve to draw, as (x, y), None if there is none.
    """

    mean: float | None
    n: int
    curve: tuple[list[float], list[float]] | None = None


class Metric:
    """Interface of a metric.

    Attributes:
        name: in tables and in `--metrics`.
        higher_is_better: None if the metric describes a map and does not rank.
        slow: takes hundreds of forward passes per map; left out of `--metrics fast`.
        in_csv: per_image.csv contains `detail` too, since the summary does not follow from the values.
    """

    name: str
    higher_is_better: bool | None
    slow = False
    in_csv = False

    def per_image(self, view: MapView) -> Tensor:
        """Return (B,), NaN for an image that does not count."""
        raise NotImplementedError

    def detail(self, view: MapView) -> Tensor | None:
        """Return (B, K) numbers behind the values, if `summarise` needs them."""
        return None

    def summarise(self, values: np.ndarray, details: np.ndarray | None) -> Summary:
        """Return the figure of the tables from values (N,) and details (N, K) of all images."""
        counted = np.isfinite(values)
        mean = float(values[counted].mean()) if counted.any() else None
        return Summary(mean, int(counted.sum()), self._curve(details))

    def _curve(self, details: np.ndarray | None) -> tuple[list[float], list[float]] | None:
        if details is None:
            return None
        return self.axis(details.shape[1]).tolist(), details.mean(axis=0).tolist()

    def axis(self, n_points: int) -> np.ndarray:
        """Return the share of removed pixels at each point of the curve."""
        return np.linspace(0, 1, n_points)


class RemovalAuc(Metric):
    """Area under a removal curve, 0 to 90.

    POS, NEG: 1 while the class stays on top (released). DEL, INS: its probability along the same two curves;
    this INS removes the least salient pixels first and is not RISE's insertion.
    """

    def __init__(self, name: str, most_salient_first: bool, probability: bool):
        self.name, self.higher_is_better = name, not most_salient_first
        self.most_salient_first, self.probability = most_salient_first, probability

    def detail(self, view: MapView) -> Tensor:
        """Return the curve, (B, 10)."""
        return view.curve(self.most_salient_first)[0 if self.probability else 1]

    def per_image(self, view: MapView) -> Tensor:
        """Return (B,)."""
        return auc(self.detail(view))

    def axis(self, n_points: int) -> np.ndarray:
        """Return 0, 0.1, ..., 0.9."""
        return np.arange(n_points) / N_STEPS


class AverageDrop(Metric):
    """ADP: 100 * max(0, p - p_m) / p, with p the probability on the image and p_m on image times mask."""

    higher_is_better = False

    def __init__(self, name: str, masked: str):
        self.name, self.masked = name, masked

    def per_image(self, view: MapView) -> Tensor:
        """Return (B,)."""
        p = view.batch.unmasked[0].double()
        tiny = torch.finfo(torch.float32).tiny
        return 100 * (p - getattr(view, self.masked).double()).clamp(min=0) / p.clamp(min=tiny)


class IncreaseInConfidence(Metric):
    """PIC: 100 where the probability on image times mask is above that on the image, else 0."""

    higher_is_better = True

    def __init__(self, name: str, masked: str):
        self.name, self.masked = name, masked

    def per_image(self, view: MapView) -> Tensor:
        """Return (B,)."""
        return 100.0 * (getattr(view, self.masked) > view.batch.unmasked[0]).double()


class MaskArea(Metric):
    """Mean of the mask that multiplies the image, in percent; describes how much a method shows."""

    name, higher_is_better = "mask_area", None

    def per_image(self, view: MapView) -> Tensor:
        """Return (B,)."""
        return 100 * view.shown.double().mean((1, 2))


class Gini(Metric):
    """Gini index of the map's absolute values (Hurley & Rickard 2009; Chalasani et al. 2020), in percent.

    0 where all pixels are equal, near 100 where one pixel has everything; 0 for a map of zeros. Describes how
    sparse a map is.
    """

    name, higher_is_better = "gini", None

    def per_image(self, view: MapView) -> Tensor:
        """Return (B,)."""
        values = view.saliency.double().abs().flatten(1).sort(1).values
        n, total = values.shape[1], values.sum(1)
        rank = torch.arange(1, n + 1, device=values.device)
        weighted = (values * (n - rank + 0.5)).sum(1) / n
        tiny = torch.finfo(values.dtype).tiny
        return torch.where(total > 0, 100 * (1 - 2 * weighted / total.clamp(min=tiny)), 0.0)


class RiseAuc(Metric):
    """RISE's deletion and insertion (Petsiuk et al. 2018), in percent of the whole area, 0 to 100.

    The top class's probability while W pixels at a time, the most salient first, are deleted from the image
    or put back into its blurred copy; all H + 1 points from none to all pixels.
    """

    slow = True

    def __init__(self, name: str, insert: bool):
        self.name, self.higher_is_better, self.insert = name, insert, insert

    def detail(self, view: MapView) -> Tensor:
        """Return the curve, (B, H + 1)."""
        return view.once(self.name, lambda: rise_curve(view, self.insert))

    def per_image(self, view: MapView) -> Tensor:
        """Return (B,)."""
        return 100 * rise_auc(self.detail(view))


class InformationCurve(Metric):
    """AIC and SIC (Kapishnikov et al. 2019), as in PAIR's `saliency` package, in percent.

    Area under the median over the images of performance against information; see `information`. Images
    whose performance is below 0.8 on the unmasked image (AIC: the wrong ones), or not above that on the
    blurred one, do not count.
    """

    higher_is_better, slow, in_csv = True, True, True

    def __init__(self, name: str, accuracy: bool):
        self.name, self.accuracy = name, accuracy

    def detail(self, view: MapView) -> Tensor:
        """Return information, then performance, at each threshold, both in [0, 1]: (B, 2 * 13)."""
        return points(view.once("information", lambda: performance_curves(view)), self.accuracy)

    def per_image(self, view: MapView) -> Tensor:
        """Return (B,), the area under each image's own curve."""
        areas = [point_auc(one) for one in self.detail(view).double().cpu().numpy()]
        return 100 * torch.from_numpy(np.array(areas))

    def summarise(self, values: np.ndarray, details: np.ndarray | None) -> Summary:
        """Return the area under the median curve, which is not the mean of the values."""
        counted = np.isfinite(details).all(axis=1)
        if not counted.any():
            return Summary(None, 0)
        x, y = median_curve(details[counted])
        drawn = slice(None, None, 10)
        return Summary(
            100 * float(np.trapezoid(y, x)), int(counted.sum()), (x[drawn].tolist(), y[drawn].tolist())
        )


METRICS = (
    RemovalAuc("POS", most_salient_first=True, probability=False),
    RemovalAuc("NEG", most_salient_first=False, probability=False),
    RemovalAuc("DEL", most_salient_first=True, probability=True),
    RemovalAuc("INS", most_salient_first=False, probability=True),
    AverageDrop("ADP", "shown_probability"),
    IncreaseInConfidence("PIC", "shown_probability"),
    AverageDrop("ADP_minmax", "min_max_probability"),
    IncreaseInConfidence("PIC_minmax", "min_max_probability"),
    MaskArea(),
    Gini(),
    RiseAuc("RISE_deletion", insert=False),
    RiseAuc("RISE_insertion", insert=True),
    InformationCurve("AIC", accuracy=True),
    InformationCurve("SIC", accuracy=False),
)


def choose_metrics(text: str) -> tuple[Metric, ...]:
    """Return the metrics of `--metrics`: `fast`, `all`, or names with commas, in the order of `METRICS`.

    Raises:
        UserError: an unknown name.
    """
    names = choose_names("--metrics", "metric", text, [metric.name for metric in METRICS], (FAST, ALL))
    return tuple(
        metric
        for metric in METRICS
        if metric.name in names or ALL in names or (FAST in names and not metric.slow)
    )


def name_of(metrics: tuple[Metric, ...]) -> str:
    """Return the part of a results folder's name that says which metrics; empty for `fast`."""
    for text in (FAST, ALL):
        if metrics == choose_metrics(text):
            return "" if text == FAST else ALL
    return "-".join(metric.name for metric in metrics)
