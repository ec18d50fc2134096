"""Pictures that visitors hand over, checked before they are decoded; and the folder that holds them."""

import time
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from ltx.config import UserError
from ltx.datasets.base import BadImageError
from ltx.datasets.pictures import PictureFiles

LONGEST_SIDE = 1024
# The formats that no other program is run for (EPS would start Ghostscript).
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_OLDEST = 3600  # seconds that an upload or a result is kept
_FULL = 2 * 2**30  # bytes of the folder


def read_upload(path: str | Path, folder: Path, max_megabytes: int, max_megapixels: int) -> Image.Image:
    """A picture from the page's folder: RGB, upright, its longer side at most `LONGEST_SIDE`.

    Raises:
        UserError: no such file in the folder, no picture, or a limit is exceeded; without the folder's name.
    """
    path = Path(path).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise UserError("that picture is not here any more; drop it again")
    if path.stat().st_size > max_megabytes * 1_000_000:
        raise UserError(f"{path.name} has more than {max_megabytes} MB; make it smaller first")
    Image.init()
    try:
        with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        width = height = 1_000_000
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{path.name} is no picture that can be read; take a JPEG, PNG or WebP") from error
    if width * height > max_megapixels * 1_000_000:
        raise UserError(f"{path.name} has more than {max_megapixels} megapixels; make it smaller first")
    try:
        picture = PictureFiles(path.parent, [path.name], (1, 1)).picture(0)
    except BadImageError as error:
        raise UserError(str(error).replace(f"{path.parent}/", "")) from error
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture


def sweep(folder: Path, keep: Collection[Path] = (), oldest: float = _OLDEST, full: int = _FULL) -> None:
    """Delete the files that are older than `oldest` seconds, and the oldest ones beyond `full` bytes.

    Args:
        folder: of uploads and results.
        keep: files that stay.
        oldest: age in seconds.
        full: size of all files.
    """
    files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file() and path not in keep]
    total, now = sum(status.st_size for _, status in files), time.time()
    for path, status in sorted(files, key=lambda one: one[1].st_mtime):
        if total > full or now - status.st_mtime > oldest:
            total -= status.st_size
            path.unlink(missing_ok=True)
