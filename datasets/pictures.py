"""Pictures of any kind as RGB, and sets of pictures that are named one by one."""

import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from config import UserError
from datasets.base import NO_LABEL, ImageSet, to_tensor

log = logging.getLogger(__name__)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})
MAX_MEGAPIXELS = 150
_SMALLEST_SIDE = 8


def read_image(path: Path, upright: bool = False) -> Image.Image:
    """A picture as RGB: of an animation the first frame, transparent pixels on white, 16 bits scaled to 8.

    Args:
        path: the file.
        upright: turn it as its EXIF orientation says. The released protocol does not.

    Raises:
        UserError: the file is missing, no picture, truncated, or has more than `MAX_MEGAPIXELS`.
    """
    return _read(path, upright)[0]


def _read(path: Path, upright: bool) -> tuple[Image.Image, str]:
    """The picture and what was done to it ("" if nothing)."""
    with _opened(path) as image:
        return _as_rgb(image, upright)


@contextmanager
def _opened(path: Path):
    """The picture's header; whatever goes wrong with the picture within becomes one line."""
    too_large = UserError(f"{path} has more than {MAX_MEGAPIXELS} megapixels; make it smaller first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
                    raise too_large
                yield image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"no such image: {path}") from error
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"cannot read image {path}: {error or type(error).__name__}") from error


def _as_rgb(image: Image.Image, upright: bool) -> tuple[Image.Image, str]:
    remarks = []
    if getattr(image, "is_animated", False) and image.format != "MPO":  # phones' JPEGs with a depth map
        remarks.append("only the first frame is used")
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits per channel")
    if image.mode.startswith("I"):
        remarks.append("16 bits per pixel are scaled to 8")
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    elif image.has_transparency_data:
        pixels = image.convert("RGBA")
        if pixels.getchannel("A").getextrema()[0] < 255:
            remarks.append("transparent pixels are put on white")
        white = Image.new("RGBA", pixels.size, "white")
        image = Image.alpha_composite(white, pixels)
    return image.convert("RGB"), "; ".join(remarks)


class PictureFiles(ImageSet):
    """Pictures by their paths, turned upright, without labels.

    Args:
        root: folder that the names start from.
        names: paths relative to `root`.
        image_size: (H, W).

    """

    def __init__(self, root: Path, names: Sequence[str], image_size: tuple[int, int]):
        super().__init__(image_size)
        self.root, self.names = Path(root), list(names)
        self.labels = [NO_LABEL] * len(self.names)

    @classmethod
    def of(cls, inputs: Sequence[Path], image_size: tuple[int, int]) -> "PictureFiles":
        """The pictures that a user names: files, or folders of them.

        Raises:
            UserError: nothing there.
        """
        paths = [path for given in inputs for path in _pictures_at(Path(given))]
        paths = list(dict.fromkeys(path.resolve() for path in paths))
        root = Path(os.path.commonpath([path.parent for path in paths]))
        return cls(root, [path.relative_to(root).as_posix() for path in paths], image_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = to_tensor(self.picture(index), self.image_size)
        return {"image": image, "label": NO_LABEL, "index": index}

    def picture(self, index: int) -> Image.Image:
        """The whole picture, RGB and upright; logs what had to be done to it.

        Raises:
            UserError: it cannot be read, or is too small to show anything.
        """
        path = self.root / self.names[index]
        image, remark = _read(path, upright=True)
        _check_sides(path, image)
        if remark:
            log.warning("%s: %s", path, remark)
        return image

    def check(self) -> None:
        """Opens every picture's header, so that a wrong file is told before any work is done.

        Raises:
            UserError: a file that is no picture, is too large, or has a side under 8 pixels.
        """
        for name in self.names:
            with _opened(self.root / name) as image:
                _check_sides(self.root / name, image)

    def describe(self) -> dict[str, Any]:
        return {"kind": "files", "root": str(self.root), "names": self.names}


def _check_sides(path: Path, image: Image.Image) -> None:
    if min(image.size) < _SMALLEST_SIDE:
        raise UserError(
            f"{path} is {image.width} x {image.height} pixels; each side needs at least {_SMALLEST_SIDE}"
        )


def _pictures_at(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
        if not found:
            raise UserError(f"no pictures in {path} (looked for {', '.join(sorted(EXTENSIONS))})")
        return found
    if not path.is_file():
        raise UserError(f"no such picture or folder: {path}")
    return [path]
