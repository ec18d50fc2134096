"""Pictures of any kind as RGB, and sets of pictures that are named one by one."""

import errno
import logging
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ltx.config import UserError
from ltx.datasets.base import NO_LABEL, BadImageError, ImageSet, to_tensor

log = logging.getLogger(__name__)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})
MAX_MEGAPIXELS = 150
_SMALLEST_SIDE = 8
# What the operating system says of one file; anything else (a broken disk) is not the image's fault.
_OF_ONE_FILE = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def read_image(path: Path, upright: bool = False) -> Image.Image:
    """A picture as RGB: of an animation the first frame, transparent pixels on white, 16 bits scaled to 8.

    Args:
        path: the file.
        upright: turn it as its EXIF orientation says. The released protocol does not.

    Raises:
        BadImageError: the file is missing, no picture, truncated, or has more than `MAX_MEGAPIXELS`.
        UserError: its folder is gone, the disk is broken, memory has run out, ...
    """
    return _read(path, upright)[0]


def shown_name(name: str) -> str:
    """A file's name as text; bytes that are no UTF-8 become `\\xff`, and `file_of` finds the file again."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def file_of(root: Path, name: str) -> Path:
    """The file below `root` that `shown_name` has named."""
    path = Path(root) / name
    if "\\x" in name and not os.path.lexists(path):
        as_bytes = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), name.encode())
        return Path(root) / os.fsdecode(as_bytes)
    return path


def is_within(name: str) -> bool:
    """Return whether a name stays below its folder: neither absolute nor with `..`."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _read(path: Path, upright: bool) -> tuple[Image.Image, str]:
    """The picture and what was done to it ("" if nothing)."""
    with _opened(path) as image:
        return _as_rgb(image, upright)


@contextmanager
def _opened(path: Path):
    """The picture's header; whatever goes wrong with the picture within becomes one line."""
    said = shown_name(str(path))
    too_large = BadImageError(f"{said} has more than {MAX_MEGAPIXELS} megapixels; make it smaller first")
    try:
        _check_file(path, said)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
                    raise too_large
                yield image
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception as error:  # a damaged file may raise anything
        machine = isinstance(error, MemoryError) or (
            isinstance(error, OSError) and error.errno not in {None, *_OF_ONE_FILE}
        )
        kind = UserError if machine else BadImageError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"cannot read image {said}: {shown_name(reason)}") from error


def _check_file(path: Path, said: str) -> None:
    """Raises an error where a path is no file: reading a pipe, say, would never end."""
    if path.is_file():
        return
    if path.is_symlink():
        raise BadImageError(f"cannot read image {said}: a symbolic link that leads to no file")
    if path.is_dir():
        raise BadImageError(f"cannot read image {said}: it is a folder")
    if path.exists():
        raise BadImageError(f"cannot read image {said}: it is a device or a pipe, no file")
    # Without its folder, all the images may be gone (a disk that is no longer mounted): no reason to go on.
    kind = BadImageError if path.parent.is_dir() else UserError
    raise kind(f"no such image: {said}")


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
        paths = list(dict.fromkeys(_resolved(path) for path in paths))
        root = Path(os.path.commonpath([path.parent for path in paths]))
        return cls(root, [shown_name(path.relative_to(root).as_posix()) for path in paths], image_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = to_tensor(self.picture(index), self.image_size)
        return {"image": image, "label": NO_LABEL, "index": index}

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return file_of(self.root, self.names[index])

    def picture(self, index: int) -> Image.Image:
        """The whole picture, RGB and upright; logs what had to be done to it.

        Raises:
            BadImageError: it cannot be read, or is too small to show anything.
        """
        path = self.path(index)
        image, remark = _read(path, upright=True)
        _check_sides(path, image)
        if remark:
            log.warning("%s: %s", shown_name(str(path)), remark)
        return image

    def check(self, skip: bool = False) -> dict[int, str]:
        """Opens every picture's header, so that a wrong file is told before any work is done.

        Args:
            skip: go on at a file that is no picture, is too large, or has a side under 8 pixels.

        Returns:
            What is wrong with which pictures, by position.

        Raises:
            BadImageError: the first of them, without `skip`, or where there are no others.
        """
        wrong = {}
        for index in range(len(self)):
            path = self.path(index)
            try:
                with _opened(path) as image:
                    _check_sides(path, image)
            except BadImageError as error:
                wrong[index] = str(error)
                if not skip or len(wrong) == len(self):
                    raise
        return wrong

    def describe(self) -> dict[str, Any]:
        return {"kind": "files", "root": str(self.root), "names": self.names}


def _check_sides(path: Path, image: Image.Image) -> None:
    if min(image.size) < _SMALLEST_SIDE:
        raise BadImageError(
            f"{shown_name(str(path))} is {image.width} x {image.height} pixels; each side needs at least "
            f"{_SMALLEST_SIDE}"
        )


def _resolved(path: Path) -> Path:
    """An absolute path whose folder has no links; the file itself may be one that leads nowhere."""
    return path.parent.resolve() / path.name


def pictures_in(folder: Path) -> list[Path]:
    """List, in order, the files of a folder that are named like pictures, but for hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    )


def _pictures_at(path: Path) -> list[Path]:
    if path.is_dir():
        found = pictures_in(path)
        if not found:
            raise UserError(f"no pictures in {path} (looked for {', '.join(sorted(EXTENSIONS))})")
        return found
    if not path.is_file():
        raise UserError(f"no such picture or folder: {path}")
    return [path]
