"""Saliency maps drawn over images: NumPy in, NumPy out; tensors on the CPU are taken too.

Images are (3, H, W) in [0, 1], maps (H, W) in [0, 1], pictures (H, W, 3) in [0, 1], all float32.
"""

import difflib
from dataclasses import dataclass

import matplotlib
import numpy as np
from numpy.typing import ArrayLike

from ltx.config import UserError

_MOST_SORTED = 250_000  # pixels of a map of which the contour's level is found exactly
_LINES = 400  # lines of a contour fit this many times into the longer side


@dataclass(frozen=True)
class Style:
    """Colours of a map.

    Attributes:
        colormap: name of a matplotlib colour map; the default is perceptually uniform.
        alpha: opacity of the colours where the map is 1, in [0, 1].
        contour: outline the smallest area that has half of the map's mass.

    Raises:
        UserError: no such colour map, with the nearest names, or an alpha outside [0, 1].
    """

    colormap: str = "plasma"
    alpha: float = 0.7
    contour: bool = True

    def __post_init__(self):
        known = {name.lower(): name for name in matplotlib.colormaps}
        if self.colormap not in known.values():
            near = difflib.get_close_matches(self.colormap.lower(), known, n=3, cutoff=0.4)
            names = ", ".join(known[name] for name in near) or "viridis, plasma, inferno, magma, cividis"
            raise UserError(f"--colormap {self.colormap}: no such colour map; nearest names: {names}")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"--alpha {self.alpha}: wanted a number from 0 to 1")

    def colours(self, values: ArrayLike) -> np.ndarray:
        """Colours (..., 3) of values (...) in [0, 1]."""
        table = matplotlib.colormaps[self.colormap](np.linspace(0, 1, 256))[:, :3].astype(np.float32)
        return table[(np.asarray(values).clip(0, 1) * 255).round().astype(np.uint8)]


PLAIN = Style()


def overlay(image: ArrayLike, saliency: ArrayLike, style: Style = PLAIN) -> np.ndarray:
    """Picture of an image under its map, whose value is also its opacity: what is not kept stays as it is."""
    values = np.asarray(saliency, dtype=np.float32)
    opacity = (style.alpha * values.clip(0, 1))[..., None]
    picture = (1 - opacity) * _channels_last(image) + opacity * style.colours(values)
    return outlined(picture, values >= half_mass_level(values)) if style.contour else picture


def heat_map(saliency: ArrayLike, style: Style = PLAIN) -> np.ndarray:
    """Picture of a map alone, scaled to its own peak."""
    return style.colours(_scaled(saliency))


def masked_image(image: ArrayLike, saliency: ArrayLike) -> np.ndarray:
    """Picture of an image times its map, brightened so that faint maps show; see `brightness`."""
    values = np.asarray(saliency, dtype=np.float32)
    return _channels_last(image) * (brightness(values) * values).clip(0, 1)[..., None]


def brightness(saliency: ArrayLike) -> float:
    """Factor at which the pixels that have half of a map's mass are at full brightness: 1 to 1000."""
    return 1 / min(max(half_mass_level(saliency), 1e-3), 1.0)


def cutout(image: ArrayLike, mask: ArrayLike) -> np.ndarray:
    """Image where a mask (H, W) is true and transparent elsewhere: (H, W, 4)."""
    return np.dstack([_channels_last(image), np.asarray(mask, dtype=np.float32)])


def boxed(image: ArrayLike, box: tuple[int, int, int, int]) -> np.ndarray:
    """Picture of an image with a rectangle (x, y, width, height) around what it holds."""
    picture = _channels_last(image)
    inside = np.zeros(picture.shape[:2], bool)
    x, y, width, height = box
    inside[y : y + height, x : x + width] = True
    return outlined(picture, inside)


def outlined(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Picture with a white line inside a region (H, W) and a black one around it."""
    width = max(1, round(max(region.shape) / _LINES))
    picture = picture.copy()
    picture[region & _grown(~region, width)] = 1
    picture[~region & _grown(region, width)] = 0
    return picture


def half_mass_level(saliency: ArrayLike) -> float:
    """Value above which the map's pixels are the fewest that have half of its mass."""
    values = np.asarray(saliency)
    step = max(1, int(np.sqrt(values.size / _MOST_SORTED)))
    largest = np.sort(values[::step, ::step], axis=None)[::-1].astype(np.float64)
    mass = largest.cumsum()
    return float(largest[min(np.searchsorted(mass, mass[-1] / 2), largest.size - 1)])


def bounding_box(mask: ArrayLike) -> tuple[int, int, int, int]:
    """Smallest rectangle (x, y, width, height) around the true pixels of a mask (H, W); zeros if none is."""
    rows, columns = (np.flatnonzero(np.asarray(mask).any(axis)) for axis in (1, 0))
    if not rows.size:
        return 0, 0, 0, 0
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def _channels_last(image: ArrayLike) -> np.ndarray:
    return np.moveaxis(np.asarray(image, dtype=np.float32), 0, -1)


def _scaled(saliency: ArrayLike) -> np.ndarray:
    values = np.asarray(saliency, dtype=np.float32)
    return values / max(float(values.max()), 1e-12)


def _grown(region: np.ndarray, width: int) -> np.ndarray:
    """Region with every pixel that is at most `width` rows and columns away from it."""
    for axis in (0, 1):
        source, region = np.moveaxis(region, axis, 0), region.copy()
        grown = np.moveaxis(region, axis, 0)
        for shift in range(1, width + 1):
            grown[shift:] |= source[:-shift]
            grown[:-shift] |= source[shift:]
    return region


CELL_TITLES = ("image", "saliency map (scaled)", "overlay", "masked image (scaled)")


def cells(image: ArrayLike, saliency: ArrayLike, style: Style = PLAIN) -> list[np.ndarray]:
    """Pictures of the image, its map, the overlay and the masked image; see `CELL_TITLES`."""
    return [
        _channels_last(image),
        heat_map(saliency, style),
        overlay(image, saliency, style),
        masked_image(image, saliency),
    ]
