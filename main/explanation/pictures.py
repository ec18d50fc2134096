"""Files of one explained picture: those of `--outputs` and a sheet."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ltx.datasets.classes import short_name
from ltx.main.common import drawing
from ltx.main.common.drawing import Style
from ltx.main.common.figures import Strip, write_picture, write_strips
from ltx.main.runs.files import write_json
from ltx.main.runs.mask_files import MaskUnit
from ltx.models.files import replace_file

SCORES = ("probability", "masked_probability", "complement_probability", "mask_area")
SHEET_SIDE, PREVIEW_SIDE = 640, 480
PREVIEWS = "previews"
# Outputs that need the level at which a map keeps its class.
WITH_LEVEL = frozenset({"mask", "box", "cutout", "json"})


@dataclass(frozen=True)
class Look:
    """The files of each picture, and their look.

    Attributes:
        outputs: of `options.OUTPUTS`.
        style: colours.
        max_size: longest side of the files; None for the picture's own.
        previews: small overlays for a gallery too.
    """

    outputs: tuple[str, ...]
    style: Style
    max_size: int | None = None
    previews: bool = False


@dataclass(frozen=True)
class Explained:
    """One picture with its maps.

    Attributes:
        picture: RGB, upright: the part that the explainee sees.
        corner: x and y of that part in the whole picture.
        unit: the maps, one row per class.
        shown: variant that is shown.
        names: name of each class of the explainee.
        warnings: by row, why the explanation looks failed.
        levels: by row, at and above which pixels the class is kept; empty where no file needs them.
    """

    picture: Image.Image
    corner: tuple[int, int]
    unit: MaskUnit
    shown: str
    names: Sequence[str]
    warnings: Sequence[Sequence[str]]
    levels: Sequence[float] = ()

    def pixels(self, longest: int | None) -> np.ndarray:
        """The picture (3, H, W) in [0, 1], its longer side at most `longest`."""
        picture = self.picture
        if longest is not None and max(picture.size) > longest:
            picture = picture.copy()
            picture.thumbnail((longest, longest))
        return np.moveaxis(np.asarray(picture, dtype=np.float32) / 255, -1, 0)

    def map(self, row: int, size: tuple[int, ...], variant: str | None = None) -> np.ndarray:
        """Saliency map (H, W) in [0, 1] of a row, by default of the variant that is shown."""
        return self.unit.maps(variant or self.shown, (size[-2], size[-1]), slice(row, row + 1))[0].numpy()

    def class_name(self, row: int) -> str:
        """Name of the class that a row explains."""
        return short_name(self.names[self.unit.classes[row]])

    def peak(self, row: int) -> float:
        """Highest value of a row's mask."""
        return float(self.unit.token_masks[self.shown][row].max())

    def kept(self, row: int, saliency: np.ndarray) -> np.ndarray:
        """The smallest part of a row's map (H, W) that keeps the class, as a mask."""
        return saliency >= min(self.levels[row], saliency.max())


def write_pictures(folder: Path, stem: str, explained: Explained, look: Look) -> None:
    """Write the files of a picture, its sheet `<stem>_sheet.png` last.

    With several classes, index and name of the class stand behind the stem, except in the names of the sheet
    and of the JSON file.

    Args:
        folder: where to.
        stem: start of the files' names.
        explained: the picture and its maps.
        look: which files, and how they look.
    """
    pixels = explained.pixels(look.max_size)
    for row, start in enumerate(starts(stem, explained.unit.classes, explained.names)):
        saliency = explained.map(row, pixels.shape)
        for output in look.outputs:
            if output in _DRAWN:
                ending, draw = _DRAWN[output]
                kept = explained.kept(row, saliency) if output in WITH_LEVEL else None
                write_picture(folder / f"{start}_{ending}.png", draw(pixels, saliency, kept, look.style))
            elif output == "npy":
                save = functools.partial(_save_array, values=saliency)
                replace_file(folder / f"{start}_saliency.npy", save)
        if look.previews:
            small = explained.pixels(PREVIEW_SIDE)
            over = drawing.overlay(small, explained.map(row, small.shape), look.style)
            write_picture(folder / PREVIEWS / f"{start}.webp", over)
    if "json" in look.outputs:
        write_json(folder / f"{stem}.json", _as_json(explained))
    write_strips(folder / f"{stem}_sheet.png", _strips(explained, look.style), look.style)


def scores_of(unit: MaskUnit, row: int) -> dict[str, float]:
    """`SCORES` of a row, in their order."""
    return {name: float(unit.arrays[name][row]) for name in SCORES}


def starts(stem: str, classes: np.ndarray, names: Sequence[str]) -> list[str]:
    """Start of the names of each class's files."""
    if len(classes) == 1:
        return [stem]
    return [f"{stem}_{label}_{slug(short_name(names[label]))}" for label in classes.tolist()]


def stems(names: Sequence[str]) -> list[str]:
    """Start of each picture's file names: without its ending where no other picture has the same."""
    short = [Path(name).with_suffix("").as_posix().replace("/", "_") for name in names]
    return [
        stem if short.count(stem) == 1 else name.replace("/", "_").replace(".", "_")
        for stem, name in zip(short, names, strict=True)
    ]


# By output: the ending of the file's name, and the picture of (pixels, map, smallest mask, style).
_DRAWN: dict[str, Any] = {
    "overlay": ("overlay", lambda pixels, saliency, _, style: drawing.overlay(pixels, saliency, style)),
    "heatmap": ("saliency", lambda _, saliency, __, style: drawing.heat_map(saliency, style)),
    "masked": ("masked", lambda pixels, saliency, *_: drawing.masked_image(pixels, saliency)),
    "mask": ("mask", lambda _, __, kept, ___: kept.astype(np.float32)),
    "box": ("box", lambda pixels, _, kept, __: drawing.boxed(pixels, drawing.bounding_box(kept))),
    "cutout": ("cutout", lambda pixels, _, kept, __: drawing.cutout(pixels, kept)),
}


def _as_json(explained: Explained) -> dict[str, Any]:
    width, height = explained.picture.size
    classes = []
    for row, label in enumerate(explained.unit.classes.tolist()):
        kept = explained.kept(row, explained.map(row, (height, width)))
        x, y, *sides = drawing.bounding_box(kept)
        places = (x + explained.corner[0], y + explained.corner[1], *sides)
        box = dict(zip(("x", "y", "width", "height"), places, strict=True))
        mask = {"level": explained.levels[row], "area": float(kept.mean()), "box": box}
        said = {"class": label, "name": explained.class_name(row), **scores_of(explained.unit, row)}
        said |= {"peak": explained.peak(row), "warnings": list(explained.warnings[row])}
        classes.append(said | {"smallest_mask": mask})
    return {"width": width, "height": height, "variant": explained.shown, "classes": classes}


def _strips(explained: Explained, style: Style) -> list[Strip]:
    """Rows of the sheet: each class and, of a single one with steps, the mask from before them."""
    pixels, n_classes = explained.pixels(SHEET_SIDE), len(explained.unit.classes)
    maps = [explained.map(row, pixels.shape) for row in range(n_classes)]
    above = _above_others(maps) if n_classes > 1 else [None]
    strips = []
    for row, (saliency, own) in enumerate(zip(maps, above, strict=True)):
        scores = scores_of(explained.unit, row)
        lines = [
            f"{explained.class_name(row)}: {scores['probability']:.1%}",
            f"kept {scores['mask_area']:.1%} of the image: alone it gives "
            f"{scores['masked_probability']:.1%}, without it {scores['complement_probability']:.1%}",
        ]
        strips.append(_strip(pixels, saliency, own, style, lines, explained.warnings[row]))
    if n_classes == 1 and explained.shown != "pltx":
        before = explained.map(0, pixels.shape, "pltx")
        strips.append(_strip(pixels, before, None, style, ["", "before the steps"], ()))
    return strips


def _strip(pixels, saliency, own, style: Style, lines: list[str], warnings: Sequence[str]) -> Strip:
    times = drawing.brightness(saliency)
    pictures = drawing.cells(pixels, saliency, style)
    titles = ["image", "saliency map, scaled to its peak", "overlay, half of the mask outlined"]
    titles.append("kept alone" if times < 1.05 else f"kept alone, {times:.2g} times as bright")
    if own is None:
        pictures.append(np.moveaxis(pixels * (1 - saliency), 0, -1))
        titles.append("what is left without it")
    else:
        pictures.append(style.colours(own))
        titles.append("above the other classes")
    return Strip(pictures, titles, lines[0], lines[1:], tuple(warnings), float(saliency.max()))


def _above_others(maps: list[np.ndarray]) -> list[np.ndarray]:
    """Excess of each map over all others, on one scale."""
    stacked = np.stack(maps)
    others = [np.delete(stacked, row, 0).max(0) for row in range(len(maps))]
    above = (stacked - np.stack(others)).clip(min=0)
    return list(above / max(float(above.max()), 1e-12))


def _save_array(path: str, values: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, values)


def slug(name: str) -> str:
    """A name as part of a file's name: letters, digits and `_`."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
