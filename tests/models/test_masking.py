"""Upsampling, fills and scaling against implementations written here in NumPy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from ltx.models.masking import apply_mask, fill_of, min_max, upsample, with_halo


def bilinear_by_hand(mask, height, width):
    """Bilinear, pixel centres at half-integers, edges repeated."""
    h, w = mask.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = mask[y0, x0] * (1 - (x - x0)) + mask[y0, x1] * (x - x0)
            bottom = mask[y1, x0] * (1 - (x - x0)) + mask[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


@pytest.mark.parametrize(
    "grid, size", [((2, 2), (8, 8)), ((3, 4), (12, 10)), ((7, 7), (24, 20)), ((1, 3), (5, 9))]
)
def test_upsample_is_bilinear_without_aligned_corners(grid, size):
    masks = torch.rand(2, 1, *grid, dtype=torch.float64)
    maps = upsample(masks, size)
    assert maps.shape == (2, 1, *size)
    for mask, made in zip(masks[:, 0].numpy(), maps[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(made, bilinear_by_hand(mask, *size), rtol=1e-12)


def test_upsample_keeps_range_and_corners():
    mask = torch.tensor([[[[0.1, 0.9], [0.4, 0.2]]]])
    maps = upsample(mask, (8, 8))[0, 0]
    assert maps[0, 0] == 0.1 and maps[0, -1] == 0.9 and maps[-1, 0] == 0.4 and maps[-1, -1] == 0.2
    assert maps.min() >= 0.1 and maps.max() <= 0.9


def gaussian_by_hand(image):
    """11 wide, sigma 5, edges mirrored."""
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 5.0**2))
    kernel /= kernel.sum()
    return correlate1d(correlate1d(image, kernel, axis=0, mode="mirror"), kernel, axis=1, mode="mirror")


def test_black_mean_and_blur_fill():
    images = torch.rand(2, 3, 16, 20, dtype=torch.float64)
    mask = torch.rand(2, 1, 16, 20, dtype=torch.float64)
    for image, m, black, mean, blur in zip(
        images.numpy(), mask[:, 0].numpy(),
        *(apply_mask(images, mask, f).numpy() for f in ("black", "mean", "blur")),
        strict=True,
    ):  # fmt: skip
        for c in range(3):
            np.testing.assert_allclose(black[c], image[c] * m, rtol=1e-12)
            np.testing.assert_allclose(mean[c], image[c] * m + image[c].mean() * (1 - m), rtol=1e-12)
            np.testing.assert_allclose(
                blur[c], image[c] * m + gaussian_by_hand(image[c]) * (1 - m), rtol=1e-9
            )


@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
def test_full_mask_keeps_the_image_and_an_empty_one_leaves_the_fill(fill):
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(apply_mask(images, torch.ones(2, 1, 16, 16), fill), images)
    empty = apply_mask(images, torch.zeros(2, 1, 16, 16), fill)
    torch.testing.assert_close(empty, torch.zeros_like(images) + fill_of(images, fill))


def test_fill_is_each_images_own():
    images = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 0.8)])
    torch.testing.assert_close(fill_of(images, "mean"), images)


def test_min_max():
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[-4.0, 0.0], [4.0, 0.0]]])
    expected = torch.tensor([[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.5], [1.0, 0.5]]])
    torch.testing.assert_close(min_max(maps), expected)


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, 1e30])
def test_min_max_of_a_constant_map_is_zero(value):
    maps = torch.stack([torch.full((3, 4), value), torch.arange(12.0).view(3, 4)])
    scaled = min_max(maps)
    assert torch.equal(scaled[0], torch.zeros(3, 4))
    torch.testing.assert_close(scaled[1], torch.arange(12.0).view(3, 4) / 11)


def test_min_max_of_tiny_spans_stays_in_range():
    maps = torch.tensor([[0.5, 0.5 + 6e-8], [1e-40, 3e-40]])
    scaled = min_max(maps)
    assert scaled.min() == 0 and scaled.max() <= 1 and scaled[0, 1] == 1


def test_halo_orders_what_the_mask_leaves_alike_by_nearness():
    masks = torch.zeros(2, 1, 12, 16)
    masks[0, 0, 3, 5] = 1.0
    masks[1, 0, 2:4, 8:12] = 0.7
    found = with_halo(masks, 0.1)
    assert torch.equal(with_halo(masks, 0.0), masks)
    for mask, result in zip(masks[:, 0].numpy(), found[:, 0].numpy(), strict=True):
        y, x = np.mgrid[:12, :16]
        for row, column in ((0, 0), (3, 5), (7, 15)):
            along = [np.exp(-0.5 * ((place - at) / (side / 4)) ** 2)
                     for place, at, side in ((y, row, 12), (x, column, 16))]  # fmt: skip
            weights = along[0] * along[1]
            blurred = (weights * mask).sum() / weights.sum()
            expected = 1 - (1 - mask[row, column]) * (1 - 0.1 * blurred)
            assert result[row, column] == pytest.approx(expected, abs=1e-6)
    row = found[0, 0, 3]
    assert (row[5:].diff() < 0).all() and (row[:6].diff() > 0).all()


def test_halo_keeps_masks_in_range_and_peaks_in_place():
    masks = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    masks[0] = 1.0
    found = with_halo(masks, 0.3)
    assert (found >= masks).all() and (found <= 1).all()
    assert torch.equal(found[0], masks[0])
