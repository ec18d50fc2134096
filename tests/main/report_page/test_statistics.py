"""Bootstrap intervals, differences and verdicts against scipy and written-out resampling."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ltx.main.perturbation_eval.information import median_curve
from ltx.main.perturbation_eval.metrics import METRICS
from ltx.main.report_page.collect import open_runs, read_results
from ltx.main.report_page.compare import compare
from ltx.main.report_page.measures import (
    PerturbationMeasure,
    SegmentationMeasure,
    weighted_mean,
    weighted_medians,
)
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.rows import reference_of
from ltx.main.report_page.statistics import (
    AHEAD,
    BEHIND,
    SAME,
    analyse,
    draw_counts,
    interval,
)
from ltx.main.runs.tables import read_summary
from ltx.main.segmentation_eval.metrics import MeanIou, PixelAccuracy

BY_NAME = {metric.name: metric for metric in METRICS}


def comparison_of(*runs, **options):
    opened = open_runs(tuple(str(run) for run in runs))
    results = [result for run in opened for result in read_results(run)]
    options = ReportOptions(runs=(), **options)
    return {
        one.protocol: one
        for p in ("segmentation", "perturbation")
        for one in compare(results, p, options)[:1]
    }


def test_counts_are_draws_with_replacement():
    counts = draw_counts(7, 4000, seed=0)
    assert counts.shape == (4000, 7) and (counts.sum(1) == 7).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(counts.var(0), 6 / 7, atol=0.08)  # binomial(7, 1/7)
    assert (counts == draw_counts(7, 4000, seed=0)).all() and (counts != draw_counts(7, 4000, seed=1)).any()


def test_interval_of_a_mean_as_scipy():
    values = np.random.default_rng(0).gamma(2.0, 10.0, 60)
    low, high = interval(weighted_mean(values, draw_counts(60, 20000, 0)))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.15)


def test_paired_difference_as_scipy():
    rng = np.random.default_rng(0)
    a = rng.normal(50, 20, 80)
    b = a + rng.normal(1, 2, 80)
    counts = draw_counts(80, 20000, 0)
    low, high = interval(weighted_mean(b, counts) - weighted_mean(a, counts))
    theirs = stats.bootstrap(
        (b, a), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, vectorized=True,
        n_resamples=20000, method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    assert high - low < 2  # unpaired it would be near 12


def test_mean_leaves_out_images_that_do_not_count():
    counts = np.array([[1, 2, 0], [0, 3, 0], [2, 0, 1]])
    found = weighted_mean(np.array([1.0, np.nan, 4.0]), counts)
    np.testing.assert_array_equal(found, [1.0, np.nan, 2.0])


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_weighted_medians_as_numpy(n):
    rng = np.random.default_rng(n)
    curves = rng.integers(0, 4, (n, 11)).astype(float)  # with ties
    counts = rng.integers(0, 3, (50, n))
    counts[0] = 0
    found = weighted_medians(curves, counts)
    assert np.isnan(found[0]).all()
    for row, drawn in zip(found[1:], counts[1:], strict=True):
        if drawn.sum():
            np.testing.assert_array_equal(row, np.median(np.repeat(curves, drawn, axis=0), axis=0))


def test_information_curves_are_resampled_as_medians_not_means():
    rng = np.random.default_rng(0)
    points = np.sort(rng.random((9, 2, 13)), axis=-1).reshape(9, 26)
    points[3] = np.nan
    measure = PerturbationMeasure(BY_NAME["SIC"], np.full(9, np.nan), points)
    counts = draw_counts(9, 30, 0)
    for found, drawn in zip(measure.resampled(counts), counts, strict=True):
        x, y = median_curve(np.repeat(points, drawn, axis=0)[np.repeat(np.arange(9) != 3, drawn)])
        assert found == pytest.approx(100 * np.trapezoid(y, x), abs=0.1)
    x, y = median_curve(points[np.arange(9) != 3])
    assert measure.summary().mean == pytest.approx(100 * np.trapezoid(y, x))


@pytest.mark.parametrize("metric", [PixelAccuracy(), MeanIou()])
def test_segmentation_totals_are_resampled_as_totals(metric):
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(1, 500, 12).astype(float) for name in ("TP", "FP", "FN", "TN")}
    measure, counts = SegmentationMeasure(metric, columns), draw_counts(12, 20, 0)
    for found, drawn in zip(measure.resampled(counts), counts, strict=True):
        tp, fp, fn, tn = (np.repeat(columns[name], drawn).sum() for name in ("TP", "FP", "FN", "TN"))
        by_hand = {
            "PA": (tp + tn) / (tp + fp + fn + tn),
            "mIoU": (tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2,
        }
        assert found == pytest.approx(100 * by_hand[metric.name])
    assert measure.per_image[4] == pytest.approx(metric.total({k: v[4:5] for k, v in columns.items()}))


def test_figures_equal_the_evaluators_summaries(make_run):
    """Means, medians and totals over all images are those of summary.json."""
    run = make_run(n_images=11, metrics="all", segmentation_too=True)
    found = comparison_of(run)
    for result in read_results(open_runs((str(run),))[0]):
        statistics = analyse(found[result.protocol], found[result.protocol].rows[0], 100, 0)
        for variant, row in read_summary(result.folder)["rows"].items():
            for name, entry in row.items():
                assert statistics.figures[variant][name].mean == pytest.approx(entry["mean"], rel=1e-12)
                assert statistics.figures[variant][name].n == entry["n"]
                measure = result.measures[variant][name]
                if result.protocol == "perturbation":  # from six digits an image
                    again = replace(measure, whole=None).summary()
                    assert (again.mean, again.n) == (pytest.approx(entry["mean"], rel=1e-5), entry["n"])


def test_verdicts(make_run):
    """A row that is 100 points lower everywhere: the reference is behind where low is good, else ahead."""
    ltx = make_run("ltx", variants=("last",), n_images=40, seed=1)
    far = make_run("far", variants=("far",), n_images=40, seed=2, shift=-100.0)
    same = make_run("same", variants=("twin",), n_images=40, seed=1)
    comparison = comparison_of(ltx, far, same)["perturbation"]
    statistics = analyse(comparison, reference_of(comparison, None), 500, 0)
    differences = statistics.differences["far"]
    assert differences["POS"].verdict == BEHIND and differences["NEG"].verdict == AHEAD
    assert differences["NEG"].value > 60 and differences["POS"].value < -60
    assert differences["NEG"].low < differences["NEG"].value < differences["NEG"].high
    assert "gini" not in differences and "mask_area" not in differences
    found = [difference.verdict for difference in differences.values()]
    assert found.count(AHEAD) == found.count(BEHIND) == 4 == len(found) / 2
    twin = statistics.differences["twin"]
    assert all(d.value == d.low == d.high == 0 and d.verdict == SAME for d in twin.values())


def test_one_image_has_no_interval(make_run):
    comparison = comparison_of(make_run(n_images=1))["perturbation"]
    statistics = analyse(comparison, reference_of(comparison, None), 100, 0)
    assert statistics.intervals["last"] == {}
    difference = statistics.differences["pltx"]["POS"]
    assert difference.low is None and difference.verdict == SAME
