"""RISE's deletion and insertion against its definition, one step at a time."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import METRICS

DELETION, INSERTION = (
    next(m for m in METRICS if m.name == name) for name in ("RISE_deletion", "RISE_insertion")
)


@pytest.fixture
def view(make_explainee):
    explainee = make_explainee("vit", size=(16, 24))
    images, saliency = torch.rand(3, 3, 16, 24), torch.rand(3, 16, 24)
    saliency[1] = (saliency[1] * 5).round()
    classes = torch.tensor([0, 1, 2])
    return MapView(ImageBatch(explainee, images, classes, batch_size=7), saliency, saliency)


def blurred(image, mean):
    """RISE multiplies normalised images, so the mean colour stands beyond the edge."""
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = gaussian_filter(impulse, 5)
    planes = [
        convolve2d(plane - m, kernel, mode="same", boundary="fill") + m
        for plane, m in zip(image.numpy(), mean.flatten().tolist(), strict=True)
    ]
    return torch.from_numpy(np.stack(planes)).float()


@pytest.mark.parametrize("metric", [DELETION, INSERTION], ids=lambda metric: metric.name)
def test_against_one_step_at_a_time(view, metric):
    found, curves = metric.per_image(view), metric.detail(view)
    assert curves.shape == (3, 17)
    for i, image in enumerate(view.batch.images):
        with torch.no_grad():
            top = view.batch.explainee(image[None]).argmax().item()
        if metric is DELETION:
            start, finish = image, torch.zeros_like(image)
        else:
            start, finish = blurred(image, view.batch.explainee.mean), image
        order = sorted(range(16 * 24), key=lambda pixel: (-view.saliency[i].flatten()[pixel].item(), pixel))
        current, readings = start.clone(), []
        for step in range(17):
            with torch.no_grad():
                readings.append(view.batch.explainee(current[None]).softmax(1)[0, top].item())
            for pixel in order[step * 24 : (step + 1) * 24]:
                current.view(3, -1)[:, pixel] = finish.reshape(3, -1)[:, pixel]
        np.testing.assert_allclose(curves[i], readings, rtol=1e-3, atol=1e-5)
        readings = np.array(readings)
        area = (readings.sum() - readings[0] / 2 - readings[-1] / 2) / (len(readings) - 1)
        assert found[i].item() == pytest.approx(100 * area, rel=1e-3)


def test_ends_do_not_depend_on_the_map(view):
    other = MapView(view.batch, view.saliency.flip(1), view.shown)
    for metric in (DELETION, INSERTION):
        ours, theirs = metric.detail(view), metric.detail(other)
        torch.testing.assert_close(ours[:, [0, -1]], theirs[:, [0, -1]])
        assert not torch.allclose(ours, theirs)


def test_deletion_takes_the_fill(view):
    batch = view.batch
    filled = MapView(
        ImageBatch(batch.explainee, batch.images, batch.classes, "mean"), view.saliency, view.shown
    )
    last = batch.images.mean((2, 3), keepdim=True).expand_as(batch.images)
    with torch.no_grad():
        top = view.batch.explainee(view.batch.images).argmax(1)
        expected = view.batch.explainee(last).softmax(1).gather(1, top[:, None])[:, 0]
    torch.testing.assert_close(DELETION.detail(filled)[:, -1], expected)
