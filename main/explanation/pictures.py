"""Files of one explained picture: overlay, saliency map, masked picture and a sheet."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ltx.datasets.classes import short_name
from ltx.main.common.figures import CELL_TITLES, cells, write_picture, write_sheet
from ltx.main.runs.mask_files import MaskUnit
from ltx.models.files import replace_file

LONGEST_SIDE = 1024
_CELL_INCHES = 2.4


@dataclass(frozen=True)
class Explained:
    """One picture with its maps.

    Attributes:
        pixels: (3, H, W) in [0, 1], upright, its longer side at most `LONGEST_SIDE`.
        unit: the maps, one row per class.
        shown: variant that is shown.
        names: name of each class of the explainee.
    """

    pixels: Tensor
    unit: MaskUnit
    shown: str
    names: Sequence[str]

    @classmethod
    def of(cls, picture: Image.Image, unit: MaskUnit, shown: str, names: Sequence[str]) -> "Explained":
        """From the picture as it is."""
        picture = picture.copy()
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        pixels = TF.to_dtype(TF.pil_to_tensor(picture), torch.float32, scale=True)
        return cls(pixels, unit, shown, names)

    def maps(self, variant: str) -> Tensor:
        """Saliency maps (classes, H, W) in [0, 1] at the picture's own size."""
        return self.unit.maps(variant, tuple(self.pixels.shape[-2:]))

    def class_name(self, row: int) -> str:
        """Name of the class that a row explains."""
        return short_name(self.names[self.unit.classes[row]])

    def caption(self, row: int) -> str:
        """Class and probabilities of a row, for the sheet."""
        percent = {name: f"{v[row]:.1%}" for name, v in self.unit.arrays.items() if v.ndim == 1}
        return (
            f"{self.class_name(row)}\nimage {percent['probability']}\n"
            f"masked {percent['masked_probability']}\ncomplement {percent['complement_probability']}\n"
            f"keeps {percent['mask_area']}, peak {self.maps(self.shown)[row].max():.2f}"
        )


def write_pictures(folder: Path, stem: str, explained: Explained) -> list[Path]:
    """Write `<stem>_{overlay,saliency,masked,sheet}.png` and `<stem>_saliency.npy`.

    With several classes, index and name of the class stand behind the stem, except in the sheet's name.

    Args:
        folder: where to.
        stem: start of the files' names.
        explained: the picture and its maps.

    Returns:
        The files, the sheet last.
    """
    maps, n_classes = explained.maps(explained.shown), len(explained.unit.classes)
    paths = []
    for row, saliency in enumerate(maps):
        start = stem
        if n_classes > 1:
            start += f"_{explained.unit.classes[row]}_{_slug(explained.class_name(row))}"
        _, _, laid_over, masked = cells(explained.pixels, saliency)
        views = {"overlay": laid_over, "saliency": saliency.numpy(), "masked": masked}
        for name, view in views.items():
            paths.append(folder / f"{start}_{name}.png")
            write_picture(paths[-1], view)
        paths.append(folder / f"{start}_saliency.npy")
        replace_file(paths[-1], functools.partial(_save_array, values=saliency))
    paths.append(folder / f"{stem}_sheet.png")
    columns, rows, captions = _contrast(explained) if n_classes > 1 else _comparison(explained)
    write_sheet(paths[-1], rows, columns, captions, _CELL_INCHES)
    return paths


def stems(names: Sequence[str]) -> list[str]:
    """Start of each picture's file names: without its ending where no other picture has the same."""
    short = [Path(name).with_suffix("").as_posix().replace("/", "_") for name in names]
    return [
        stem if short.count(stem) == 1 else name.replace("/", "_").replace(".", "_")
        for stem, name in zip(short, names, strict=True)
    ]


def _comparison(explained: Explained) -> tuple[list[str], list, list[str]]:
    """One class: its mask, and with steps that from before them."""
    shown = explained.shown
    variants = [shown] if shown == "pltx" else ["pltx", shown]
    rows = []
    for variant in variants:
        saliency = explained.maps(variant)[0]
        complement = explained.pixels * (1 - saliency)
        rows.append([*cells(explained.pixels, saliency), complement.permute(1, 2, 0).numpy()])
    captions = [explained.caption(0) if variant == shown else "before\nthe steps" for variant in variants]
    return [*CELL_TITLES, "complement"], rows, captions


def _contrast(explained: Explained) -> tuple[list[str], list, list[str]]:
    """Several classes: each one's map, and where it is above the maps of all others, on one scale."""
    maps = explained.maps(explained.shown)
    others = [torch.cat([maps[:row], maps[row + 1 :]]).amax(0) for row in range(len(maps))]
    above = (maps - torch.stack(others)).clamp(min=0)
    above = (above / above.max().clamp(min=1e-12)).numpy()
    rows = [[*cells(explained.pixels, saliency), own] for saliency, own in zip(maps, above, strict=True)]
    captions = [explained.caption(row) for row in range(len(maps))]
    return [*CELL_TITLES, "above the other classes"], rows, captions


def _save_array(path: str, values: Tensor) -> None:
    with open(path, "wb") as file:
        np.save(file, values.numpy())


def _slug(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
