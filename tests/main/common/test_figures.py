"""Files of pictures."""

import numpy as np
import pytest
from PIL import Image

from ltx.main.common.figures import plot_curves, write_sheet

pytestmark = pytest.mark.usefixtures("drawing")


def test_sheet_shows_what_it_is_given(tmp_path):
    """A red, a green and a blue picture, found again in the middle of their cells."""
    colours = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    row = [np.ones((8, 8, 3)) * colour for colour in colours]
    path = tmp_path / "new" / "sheet.png"
    write_sheet(path, [row, row[::-1]], ["a", "b", "c"], ["first", "second"])
    pixels = np.asarray(Image.open(path).convert("RGB")) / 255
    for colour in colours:
        share = (np.abs(pixels - colour).max(2) < 0.02).mean()
        assert 0.15 < share < 0.34
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]


def test_curves_are_drawn_and_repeatable(tmp_path):
    curves = {v: {m: np.linspace(1, 0, 10).tolist() for m in ("POS", "NEG")} for v in ("pltx", "last")}
    for name in ("a.png", "b.png"):
        plot_curves(tmp_path / name, curves, "title")
    assert Image.open(tmp_path / "a.png").size[0] > 500
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("value", [-1.0, 2.0])
def test_values_outside_the_range_are_clipped(tmp_path, value):
    write_sheet(tmp_path / "x.png", [[np.full((4, 4), value), np.full((4, 4, 3), value)]], ["a", "b"])
    assert Image.open(tmp_path / "x.png").size[0] > 100
