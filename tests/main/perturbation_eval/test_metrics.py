"""ADP, PIC and the other metrics on cases worked out by hand."""

import numpy as np
import pytest
import torch

from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import choose_metrics

METRICS = choose_metrics("fast")
BY_NAME = {metric.name: metric for metric in METRICS}


def view_of(explainee, images, classes, saliency, shown=None, **arguments):
    shown = saliency if shown is None else shown
    return MapView(ImageBatch(explainee, images, classes, **arguments), saliency, shown)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


@pytest.fixture
def two_halves(linear_explainee):
    """Class 0 gains 4 from the left half and loses 2 from the right one; white 2x2 images."""
    weight = torch.tensor([[[2.0, -1.0], [2.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    return linear_explainee(weight), torch.ones(3, 3, 2, 2), torch.zeros(3, dtype=torch.long)


def test_names_and_directions():
    assert {name: metric.higher_is_better for name, metric in BY_NAME.items()} == {
        "POS": False, "NEG": True, "DEL": False, "INS": True, "ADP": False, "PIC": True,
        "ADP_minmax": False, "PIC_minmax": True, "mask_area": None, "gini": None,
    }  # fmt: skip


def test_adp_and_pic_by_hand(two_halves):
    """Left half shown: logit 2 -> 4 (rises); right half: 2 -> -2 (drops); all at half strength: 2 -> 1."""
    explainee, images, classes = two_halves
    saliency = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    view = view_of(explainee, images, classes, saliency)
    p, masked = sigmoid(2), sigmoid([4, -2, 1])
    np.testing.assert_allclose(
        BY_NAME["ADP"].per_image(view).numpy(), 100 * np.maximum(0, p - masked) / p, rtol=1e-4, atol=1e-9
    )
    assert BY_NAME["ADP"].per_image(view)[0] == 0
    assert BY_NAME["PIC"].per_image(view).tolist() == [100, 0, 0]


def test_min_max_forms_scale_each_map_first(two_halves):
    """Left 0.6, right 0.5 becomes 1 and 0; a constant map becomes 0 and shows black (logit 0)."""
    explainee, images, classes = two_halves
    saliency = torch.tensor([[[0.6, 0.5], [0.6, 0.5]], [[0.5, 0.6], [0.5, 0.6]], [[0.5, 0.5], [0.5, 0.5]]])
    view = view_of(explainee, images, classes, saliency)
    p, raw, scaled = sigmoid(2), sigmoid([1.4, 0.8, 1]), sigmoid([4, -2, 0])
    for name, masked in (("ADP", raw), ("ADP_minmax", scaled)):
        np.testing.assert_allclose(
            BY_NAME[name].per_image(view).numpy(), 100 * np.maximum(0, p - masked) / p, rtol=1e-4, atol=1e-9
        )
    assert BY_NAME["PIC"].per_image(view).tolist() == [0, 0, 0]
    assert BY_NAME["PIC_minmax"].per_image(view).tolist() == [100, 0, 0]


def test_equal_confidence_is_no_increase(two_halves):
    explainee, images, classes = two_halves
    view = view_of(explainee, images, classes, torch.ones(3, 2, 2))
    assert BY_NAME["PIC"].per_image(view).tolist() == [0, 0, 0]
    assert BY_NAME["ADP"].per_image(view).tolist() == [0, 0, 0]


def test_other_methods_are_ordered_by_their_map_and_shown_scaled(two_halves):
    """`saliency` decides the order, `shown` the mask of ADP and PIC."""
    explainee, images, classes = two_halves
    saliency = torch.tensor([[7.0, -3.0], [7.0, -3.0]]).expand(3, 2, 2)
    view = view_of(
        explainee, images, classes, saliency, torch.tensor([[1.0, 0.0], [1.0, 0.0]]).expand(3, 2, 2)
    )
    assert BY_NAME["PIC"].per_image(view).tolist() == [100, 100, 100]


def test_a_vanishing_probability_gives_no_nan(linear_explainee):
    weight = torch.stack([torch.zeros(2, 2), torch.full((2, 2), 100.0)])
    explainee = linear_explainee(weight)
    view = view_of(explainee, torch.ones(1, 3, 2, 2), torch.tensor([0]), torch.full((1, 2, 2), 0.5))
    for metric in METRICS:
        assert torch.isfinite(metric.per_image(view)).all()


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_all_metrics_against_a_plain_implementation(make_explainee, batch_size):
    """One image, one step at a time, in NumPy but for the explainee itself."""
    explainee, images = make_explainee("vit"), torch.rand(4, 3, 32, 32)
    saliency, classes = torch.rand(4, 32, 32), torch.tensor([1, 0, 3, 2])
    view = view_of(explainee, images, classes, saliency, batch_size=batch_size)
    found = {name: metric.per_image(view).numpy() for name, metric in BY_NAME.items()}

    def ask(image, c):
        logits = explainee(image[None]).detach()[0].double().numpy()
        return np.exp(logits[c]) / np.exp(logits).sum(), float(logits.argmax() == c)

    for i in range(4):
        image, flat, c = images[i], saliency[i].flatten().numpy(), classes[i].item()
        for names, order in ((("DEL", "POS"), np.argsort(-flat)), (("INS", "NEG"), np.argsort(flat))):
            readings = []
            for step in range(10):
                perturbed = image.clone()
                perturbed.view(3, -1)[:, order[: step * 1024 // 10]] = 0
                readings.append(ask(perturbed, c))
            for name, curve in zip(names, np.array(readings).T, strict=True):
                assert found[name][i] == pytest.approx(100 * np.trapezoid(curve, dx=0.1), rel=1e-4), name
        p = ask(image, c)[0]
        scaled = (saliency[i] - saliency[i].min()) / (saliency[i].max() - saliency[i].min())
        for suffix, mask in (("", saliency[i]), ("_minmax", scaled)):
            masked = ask(image * mask, c)[0]
            drop = 100 * max(0, p - masked) / p
            assert found[f"ADP{suffix}"][i] == pytest.approx(drop, rel=1e-3, abs=1e-4)
            assert found[f"PIC{suffix}"][i] == 100 * (masked > p)


def test_each_curve_is_computed_once(make_explainee):
    calls = []
    inner = make_explainee("vit")

    def counting(images):
        calls.append(len(images))
        return inner(images)

    images, classes = torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    view = view_of(counting, images, classes, torch.rand(3, 32, 32))
    for metric in METRICS:
        metric.per_image(view)
    # unmasked once, nine steps in two orders, two masked images: of three images each
    assert sum(calls) == 3 * (1 + 2 * 9 + 2)
