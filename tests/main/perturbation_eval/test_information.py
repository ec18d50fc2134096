"""AIC and SIC against PAIR's `saliency` package, and by hand."""

import numpy as np
import pytest
import torch

from ltx.main.perturbation_eval.information import (
    LEVELS,
    curve_of,
    median_curve,
    performance_curves,
    point_auc,
    points,
    seed_mask,
)
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import METRICS
from ltx.models.explainee import read_class

AIC, SIC = (next(m for m in METRICS if m.name == name) for name in ("AIC", "SIC"))
SIZE = (24, 32)


@pytest.fixture
def pic(monkeypatch):
    """The package, which calls a function that NumPy 2.4 has renamed."""
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    return pytest.importorskip("saliency.metrics.pic", reason="needs PAIR's package: pip install saliency")


@pytest.fixture
def view(linear_explainee):
    """Six images that the explainee is sure of, two that it is not, under random maps with ties."""
    rng = np.random.default_rng(0)
    explainee = linear_explainee(torch.from_numpy(rng.standard_normal((5, 3, *SIZE))).float() / 2)
    coarse = torch.from_numpy(rng.random((60, 3, 4, 5))).float()
    images = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    images = (images + 0.4 * torch.from_numpy(rng.random((60, 3, *SIZE))).float()).clamp(0, 1)
    images = images.mul(255).round().div(255)
    with torch.no_grad():
        probability, classes = explainee(images).softmax(1).max(1)
    order = probability.argsort()
    chosen = torch.cat([order[:2], order[-6:]])
    images, classes = images[chosen], classes[chosen].clone()
    classes[2] = (classes[2] + 1) % 5  # a class that is not on top
    saliency = torch.from_numpy(rng.random((8, *SIZE))).float()
    saliency[3] = (saliency[3] * 4).round()
    names = [f"image {i}" for i in range(8)]
    return MapView(ImageBatch(explainee, images, classes, names=names), saliency, saliency)


def theirs(pic, view, accuracy):
    """The package's results image by image; None where it leaves an image out."""
    found = []
    for i in range(len(view.batch.images)):

        def predict(images, i=i):
            batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            return [
                float(read_class(view.batch.explainee, one[None], view.batch.classes[i : i + 1])[accuracy])
                for one in batch
            ]

        pixels = (view.batch.images[i] * 255).round().byte().permute(1, 2, 0).numpy()
        arguments = (pixels, view.saliency[i].numpy(), seed_mask(SIZE, view.batch.names[i]), predict, LEVELS)
        try:
            found.append(pic.compute_pic_metric(*arguments, min_pred_value=0.8))
        except pic.ComputePicMetricError:
            found.append(None)
    return found


@pytest.mark.parametrize("metric", [AIC, SIC], ids=lambda metric: metric.name)
def test_equals_the_package(view, pic, metric):
    expected = theirs(pic, view, metric.accuracy)
    counted = [one for one in expected if one is not None]
    assert 3 <= len(counted) < len(expected), "some images have to count and some not"
    values, details = metric.per_image(view).numpy(), metric.detail(view).numpy()
    for value, one in zip(values, expected, strict=True):
        if one is None:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(100 * one.auc, rel=1e-5)
    assert len({round(one.auc, 3) for one in counted}) > 2
    summary = metric.summarise(values, details)
    aggregate = pic.aggregate_individual_pic_results(counted, method="median")
    assert summary.n == len(counted)
    assert summary.mean == pytest.approx(100 * aggregate.auc, rel=1e-5)
    _, y = median_curve(details[np.isfinite(values)])
    np.testing.assert_allclose(y, aggregate.curve_y, atol=1e-4)


def test_the_best_map_shows_what_decides_first():
    """Performance jumps to 1 at information 0.2, or grows in step with it."""
    size = np.linspace(0.2, 0.9, len(LEVELS))
    assert point_auc(np.concatenate([size, np.ones(13)])) == pytest.approx(0.1 + 0.8, abs=1e-3)
    assert point_auc(np.concatenate([size, size])) == pytest.approx(0.5, abs=1e-3)
    x, y = curve_of(np.concatenate([size, np.ones(13)]))
    assert len(x) == 1001 and y[0] == 0 and y[-1] == 1
    assert np.interp(0.1, x, y) == pytest.approx(0.5, abs=1e-3)


def test_performance_only_grows_and_both_are_scaled(view):
    responses = performance_curves(view)
    for accuracy in (False, True):
        size, y = (
            points(responses, accuracy).reshape(8, 2, 13)[:, 0],
            points(responses, accuracy).reshape(8, 2, 13)[:, 1],
        )
        counted = size.isfinite().all(1)
        assert (y[counted].diff(dim=1) >= 0).all()
        assert size[counted].min() >= 0 and y[counted].max() <= 1


def test_median_is_over_images_and_none_counts_as_none():
    low, high = np.concatenate([np.linspace(0.1, 1, 13), np.zeros(13)]), np.ones(26) * 0.5
    details = np.stack([low, low, high, np.full(26, np.nan)])
    values = np.array([point_auc(one) for one in details])
    summary = SIC.summarise(100 * values, details)
    assert summary.n == 3 and summary.mean == pytest.approx(100 * values[0])
    nothing = SIC.summarise(np.array([np.nan]), np.full((1, 26), np.nan))
    assert nothing.mean is None and nothing.n == 0


def test_seed_pixels_are_one_percent_and_the_images_own():
    mask = seed_mask((100, 100), "a")
    assert mask.sum() == 100
    np.testing.assert_array_equal(mask, seed_mask((100, 100), "a"))
    assert (mask != seed_mask((100, 100), "b")).any()
