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

EXTENSIONS = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".avif", ".heic", ".heif",
])  # fmt: skip
_BESIDE_PICTURES = frozenset({".csv", ".json", ".txt", ".md", ".npy"})  # labels and notes
MAX_MEGAPIXELS = 150
_SMALLEST_SIDE = 8
_DIMMEST = 16  # a floating-point image in 0 ... 255 whose brightest pixel is under it tells no range
# What the operating system says of one file; anything else (a broken disk) is not the image's fault.
_OF_ONE_FILE = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG
}  # fmt: skip
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
            _register_heif(path)
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


def _register_heif(path: Path) -> None:
    """Lets Pillow open HEIC pictures through pillow-heif, where it is installed."""
    if path.suffix.lower() not in (".heic", ".heif"):
        return
    try:
        import pillow_heif
    except ImportError:
        raise ValueError(
            "HEIC needs the package pillow-heif; install it or save the picture as JPEG"
        ) from None
    pillow_heif.register_heif_opener()


def _check_file(path: Path, said: str) -> None:
    """Raise an error where a path is no file: reading a pipe, say, would never end."""
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
    if image.mode == "F" or image.mode.startswith("I"):
        image, remark = _to_8_bits(np.asarray(image), image.mode)
        remarks.append(remark)
    elif image.has_transparency_data:
        pixels = image.convert("RGBA")
        if pixels.getchannel("A").getextrema() != (255, 255):
            remarks.append("transparent pixels are put on white")
        white = Image.new("RGBA", pixels.size, "white")
        image = Image.alpha_composite(white, pixels)
    return image.convert("RGB"), "; ".join(remarks)


def _to_8_bits(values: np.ndarray, mode: str) -> tuple[Image.Image, str]:
    """Grey values of 16 or 32 bits, or floating ones, as 8 bits; the largest value tells the range of 32.

    Raises:
        ValueError: values that are negative, not finite, or floating and of no known range.
    """
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("pixels that are negative or not finite; save it with 8 bits per channel")
    largest = values.max()
    if mode == "F":
        if largest > 255 or 1 < largest < _DIMMEST:
            raise ValueError(f"floating-point pixels up to {largest:g}; save it with 8 bits per channel")
        top = 1 if largest <= 1 else 255
    elif mode.startswith("I;16"):
        top = 65535
    else:
        top = next(top for top in (255, 65535, 2**32) if largest <= top)
    scaled = (values * (255 / top)).round().astype(np.uint8)
    return Image.fromarray(scaled), f"pixels in 0 ... {top} are scaled to 8 bits"


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
    def of(
        cls, inputs: Sequence[Path], image_size: tuple[int, int], recursive: bool = False
    ) -> "PictureFiles":
        """The pictures that a user names: files, or folders of them.

        Args:
            inputs: files and folders.
            image_size: (H, W).
            recursive: take the pictures in subfolders too.

        Raises:
            UserError: nothing there.
        """
        paths = [path for given in inputs for path in _pictures_at(Path(given), recursive)]
        paths = list(dict.fromkeys(_resolved(path) for path in paths))
        root = Path(os.path.commonpath([path.parent for path in paths]))
        return cls(root, [shown_name(path.relative_to(root).as_posix()) for path in paths], image_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = to_tensor(self._picture(index)[0], self.image_size)
        return {"image": image, "label": NO_LABEL, "index": index}

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return file_of(self.root, self.names[index])

    def picture(self, index: int) -> Image.Image:
        """The whole picture, RGB and upright; logs what had to be done to it.

        Raises:
            BadImageError: it cannot be read, or is too small to show anything.
        """
        image, remark = self._picture(index)
        if remark:
            log.warning("%s: %s", shown_name(str(self.path(index))), remark)
        return image

    def _picture(self, index: int) -> tuple[Image.Image, str]:
        path = self.path(index)
        image, remark = _read(path, upright=True)
        _check_sides(path, image)
        return image, remark

    def check(self, skip: bool = False) -> dict[int, str]:
        """Open every picture's header, so that a wrong file is told before any work is done.

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


def pictures_in(folder: Path, recursive: bool = False) -> list[Path]:
    """Files with the name of a picture in a folder, in order; the others are counted and named in the log.

    Args:
        folder: the folder.
        recursive: look in subfolders too.
    """
    paths = sorted(folder.rglob("*") if recursive else folder.iterdir())
    paths = [path for path in paths if not (recursive and path.is_dir())]
    hidden = {path for path in paths if any(part.startswith(".") for part in path.relative_to(folder).parts)}
    found = [path for path in paths if path.suffix.lower() in EXTENSIONS and path not in hidden]
    beside = {path for path in paths if path.suffix.lower() in _BESIDE_PICTURES}
    others = sorted(set(paths) - set(found) - beside)
    if others:
        names = ", ".join(shown_name(path.name) for path in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        log.warning("%s: left out, since they are not named as pictures: %s%s", folder, names, more)
    return found


def _pictures_at(path: Path, recursive: bool) -> list[Path]:
    if path.is_dir():
        found = pictures_in(path, recursive)
        if not found:
            where = "it or its subfolders" if recursive else "it; --recursive looks in its subfolders too"
            raise UserError(f"no pictures in {path} (looked for {', '.join(sorted(EXTENSIONS))} in {where})")
        return found
    if not path.is_file():
        raise UserError(f"no such picture or folder: {path}")
    return [path]
