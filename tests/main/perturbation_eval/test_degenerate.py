"""Maps and explainees at the edge: every metric has a defined value."""

import math

import numpy as np
import pytest
import torch

from ltx.main.perturbation_eval import information
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import METRICS, InformationCurve, choose_metrics
from ltx.main.segmentation_eval.metrics import void_policies

SIZE = (16, 16)


@pytest.fixture
def view(linear_explainee):
    def make(value=0.5, bias=(0.0, 0.0, 0.0), wanted=0):
        torch.manual_seed(0)
        explainee = linear_explainee(torch.randn(3, *SIZE) / 10, torch.tensor(bias))
        images = torch.rand(2, 3, *SIZE)
        classes = torch.full((2,), wanted)
        maps = torch.full((2, *SIZE), value)
        return MapView(ImageBatch(explainee, images, classes, names=["a", "b"]), maps, maps)

    return make


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "metric", [one for one in METRICS if not isinstance(one, InformationCurve)], ids=lambda one: one.name
)
def test_a_constant_map_has_a_value(view, metric, value):
    values = metric.per_image(view(value, bias=(9.0, 0.0, 0.0)))
    assert values.shape == (2,)
    assert torch.isfinite(values.double()).all()
    expected = {"mask_area": 100 * value, "gini": 0.0}.get(metric.name)
    if expected is not None:
        assert values.tolist() == pytest.approx([expected] * 2, abs=1e-9)


@pytest.mark.parametrize("name", ["AIC", "SIC"])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_information_curves_of_a_constant_map(linear_explainee, name, value):
    """It puts all pixels back at the first threshold, so the area is that under (x, 1) from there to (1, 1).

    The logit of class 0 is 8 for the image and -8 for its most blurred version.
    """
    image = torch.randint(0, 256, (1, 3, *SIZE), generator=torch.Generator().manual_seed(0)) / 255
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    blurred = torch.from_numpy(information._blurred(pixels, information.seed_mask(SIZE, "a")) / 255)
    difference = image[0].double() - blurred.permute(2, 0, 1)
    weight = 16 * difference / difference.square().sum()
    bias = 8 - (weight * image[0]).sum()
    explainee = linear_explainee(torch.stack([weight, 0 * weight]), torch.stack([bias, 0 * bias]))
    batch = ImageBatch(explainee, image.double(), torch.tensor([0]), names=["a"])
    maps = torch.full((1, *SIZE), value)
    metric = choose_metrics(name)[0]
    assert metric.per_image(MapView(batch, maps, maps)).tolist() == pytest.approx([50], abs=0.1)
    assert metric.detail(MapView(batch, maps, maps)).tolist() == [[1.0] * 26]


def test_images_that_are_as_sure_when_blurred_have_no_information_curve(view):
    for name in ("AIC", "SIC"):
        metric, one = choose_metrics(name)[0], view(0.5, bias=(99.0, 0.0, 0.0))
        assert torch.isnan(metric.per_image(one)).all()
        assert metric.summarise(metric.per_image(one).numpy(), metric.detail(one).numpy()).n == 0


def test_a_constant_map_removes_pixels_in_the_order_of_their_index(view):
    """So POS and NEG of it are equal, as are DEL and INS."""
    one = view(bias=(0.0, 1.0, 0.0), wanted=1)
    values = {metric.name: metric.per_image(one).tolist() for metric in choose_metrics("POS,NEG,DEL,INS")}
    assert values["POS"] == values["NEG"] and values["DEL"] == values["INS"]


def test_of_an_image_that_is_wrong_from_the_start_curves_begin_at_0(view):
    """The class is never on top: POS and NEG are 0, whatever the map, and the image counts."""
    one = view(bias=(-50.0, 0.0, 0.0))
    assert one.batch.unmasked[1].tolist() == [0.0, 0.0]
    for name in ("POS", "NEG"):
        metric = choose_metrics(name)[0]
        assert metric.detail(one)[:, 0].tolist() == [0.0, 0.0] and metric.per_image(one).tolist() == [
            0.0,
            0.0,
        ]
        assert metric.summarise(metric.per_image(one).numpy(), metric.detail(one).numpy()).n == 2


def test_no_probability_at_all_gives_no_drop(view):
    """p = 0 in float32: nothing is left to drop, so ADP is 0; a masked image as bad is no increase."""
    one = view(bias=(-1e4, 0.0, 0.0))
    assert one.batch.unmasked[0].tolist() == [0.0, 0.0]
    for name in ("ADP", "ADP_minmax", "PIC", "PIC_minmax"):
        assert choose_metrics(name)[0].per_image(one).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_segmentation_of_a_constant_map_is_all_background(value):
    labels = np.zeros(SIZE, dtype=np.int64)
    labels[:8] = 1
    policy = void_policies(False)[0]
    columns = dict(
        zip(policy.columns, policy.per_image(labels, np.full(SIZE, value, np.float32)), strict=True)
    )
    assert (columns["TP"], columns["FP"], columns["FN"], columns["TN"]) == (0, 0, 128, 128)
    assert columns["F1"] == 0 and all(math.isfinite(value) for value in columns.values())
