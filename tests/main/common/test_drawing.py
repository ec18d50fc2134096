"""Pictures of maps, by hand."""

import matplotlib
import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.main.common.drawing import (
    CELL_TITLES,
    Style,
    bounding_box,
    boxed,
    brightness,
    cells,
    cutout,
    half_mass_level,
    heat_map,
    masked_image,
    outlined,
    overlay,
)

PLAIN = Style(contour=False)


def test_opacity_follows_the_mask_and_is_not_rescaled():
    image, saliency = torch.rand(3, 6, 8), torch.rand(6, 8) / 10
    saliency[0, 0] = 0
    picture = overlay(image, saliency, PLAIN)
    np.testing.assert_allclose(picture[0, 0], image[:, 0, 0], atol=1e-6)
    table = matplotlib.colormaps[PLAIN.colormap]
    for i, j in ((2, 3), (5, 7)):
        value = float(saliency[i, j])
        expected = (1 - 0.7 * value) * image[:, i, j].numpy() + 0.7 * value * np.array(table(value)[:3])
        np.testing.assert_allclose(picture[i, j], expected, atol=5e-3)  # 256 colours
    assert np.abs(picture - image.permute(1, 2, 0).numpy()).max() <= 0.7 * float(saliency.max()) + 1e-6
    assert np.array_equal(overlay(image, saliency, Style(alpha=0.0, contour=False)), image.permute(1, 2, 0))


def test_heat_map_is_scaled_to_the_peak():
    saliency = np.full((6, 8), 0.001)
    saliency[1, 2] = 0.01
    top = np.array(matplotlib.colormaps["viridis"](1.0)[:3])
    np.testing.assert_allclose(heat_map(saliency, Style("viridis"))[1, 2], top, atol=1e-6)


def test_masked_image_shows_half_of_the_mass_in_full():
    image, saliency = np.random.default_rng(0).random((3, 6, 8)), np.full((6, 8), 0.001)
    saliency[1, 2], saliency[1, 3] = 0.2, 0.1  # 0.2 of 0.346
    picture = masked_image(image, saliency)
    assert brightness(saliency) == pytest.approx(5)
    np.testing.assert_allclose(picture[1, 2], image[:, 1, 2], rtol=1e-5)
    np.testing.assert_allclose(picture[1, 3], 0.5 * image[:, 1, 3], rtol=1e-5)
    np.testing.assert_allclose(picture[0, 0], 0.005 * image[:, 0, 0], rtol=1e-5)
    assert not masked_image(image, np.zeros((6, 8))).any() and brightness(np.ones((6, 8))) == 1


def test_contour_encloses_the_smallest_area_with_half_of_the_mass():
    saliency = np.array([[4.0, 1, 1], [3, 2, 1]]) / 12
    assert half_mass_level(saliency) == pytest.approx(3 / 12)
    assert half_mass_level(np.full((5, 5), 0.5)) == 0.5
    large = np.random.default_rng(0).random((1500, 1500))
    kept = large[large >= half_mass_level(large)].sum()
    assert kept / large.sum() == pytest.approx(0.5, abs=0.01)
    saliency = np.zeros((40, 40))
    saliency[10:20, 10:20] = 1
    picture = overlay(np.full((3, 40, 40), 0.5), saliency, Style(alpha=0.0))
    white = (picture == 1).all(2)
    assert white.sum() == 10**2 - 8**2 and white[10:20, 10:20].sum() == white.sum()
    assert (picture == 0).all(2).sum() == 12**2 - 10**2


def test_a_line_is_drawn_where_the_region_ends_not_where_the_picture_does():
    picture, region = np.full((20, 30, 3), 0.5), np.ones((20, 30), bool)
    assert np.array_equal(outlined(picture, region), picture)
    region[:, 15:] = False
    drawn = outlined(picture, region)
    assert (drawn[:, 14] == 1).all() and (drawn[:, 15] == 0).all() and (drawn == 0.5).all(2).sum() == 20 * 28
    assert (picture == 0.5).all()


def test_box_and_cutout():
    image, mask = np.full((3, 12, 16), 0.25), np.zeros((12, 16), bool)
    assert bounding_box(mask) == (0, 0, 0, 0)
    mask[3, 4] = mask[8, 10] = True
    assert bounding_box(mask) == (4, 3, 7, 6)
    assert (boxed(image, (4, 3, 7, 6)) == 1).all(2).sum() == 7 * 6 - 5 * 4
    kept = cutout(image, mask)
    assert kept.shape == (12, 16, 4) and kept[..., 3].sum() == 2 and (kept[..., :3] == 0.25).all()


def test_cells():
    image, saliency = torch.rand(3, 6, 8), torch.rand(6, 8)
    made = cells(image, saliency)
    assert len(made) == len(CELL_TITLES) and all(cell.shape == (6, 8, 3) for cell in made)
    np.testing.assert_array_equal(made[0], image.permute(1, 2, 0))


def test_wrong_styles():
    with pytest.raises(UserError, match=r"--colormap virdis: no such colour map; nearest names: viridis"):
        Style("virdis")
    with pytest.raises(UserError, match="nearest names: viridis, plasma"):
        Style("0123")
    with pytest.raises(UserError, match=r"--alpha 1\.5: wanted a number from 0 to 1"):
        Style(alpha=1.5)
