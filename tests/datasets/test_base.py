"""The input protocol against Pillow's own resizing."""

import numpy as np
import pytest
import torch
from PIL import Image

from ltx.datasets.base import mask_to_tensor, to_tensor


def picture(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(224, 224), (32, 48), (100, 30)])
@pytest.mark.parametrize("shape", [(300, 200), (20, 70)])
def test_resized_directly_bilinear_with_antialias(shape, size):
    """Straight to (H, W), whatever the shape: no crop, no kept aspect ratio."""
    image = picture(*shape)
    expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), dtype=np.float32) / 255
    found = to_tensor(image, size)
    assert found.dtype == torch.float32 and found.shape == (3, *size)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_without_antialias_it_would_differ():
    image = picture(300, 300)
    nearest_four = torch.nn.functional.interpolate(
        torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255, (30, 30), mode="bilinear"
    )[0]
    assert (to_tensor(image, (30, 30)) - nearest_four).abs().mean() > 0.05


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_kind_of_picture_becomes_rgb(mode):
    image = picture(16, 16).convert(mode)
    expected = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    np.testing.assert_allclose(to_tensor(image, (16, 16)).permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_range_reaches_both_ends():
    image = Image.fromarray(np.repeat(np.array([[[0], [255]]], dtype=np.uint8), 3, axis=2))
    assert to_tensor(image, (1, 2)).flatten().tolist() == [0, 1] * 3


def test_masks_are_resized_by_nearest_neighbour_and_keep_void():
    mask = np.array([[0, 1], [-1, 20]])
    large = mask_to_tensor(mask, (4, 6))
    assert large.dtype == torch.int64
    assert torch.equal(large, torch.from_numpy(mask.repeat(2, axis=0).repeat(3, axis=1)))
    random = np.random.default_rng(0).integers(-1, 3, (30, 50))
    rows = (np.arange(12) + 0.5) * 30 / 12
    columns = (np.arange(20) + 0.5) * 50 / 20
    expected = random[np.floor(rows).astype(int)][:, np.floor(columns).astype(int)]
    np.testing.assert_array_equal(mask_to_tensor(random, (12, 20)).numpy(), expected)
