"""A corpus of pictures as a large set has them: odd ones that can be read, and what cannot be."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

LEFT, RIGHT = (200, 30, 40), (20, 180, 60)
SIZE = (20, 12)
ODD_NAME = "caf\\xe9.png"  # as it is shown; on disk the byte 0xE9, which is no UTF-8


def two_halves(mode: str = "RGB") -> Image.Image:
    """20 x 12 pixels, the left half red, the right half green."""
    image = Image.new("RGB", SIZE, LEFT)
    image.paste(RIGHT, (SIZE[0] // 2, 0, *SIZE))
    return image.convert(mode)


def _sixteen_bits(path: Path) -> None:
    grey = np.full(SIZE[::-1], 257 * 200, dtype=np.uint16)
    grey[:, SIZE[0] // 2 :] = 257 * 50
    Image.fromarray(grey).save(path)


def _animated(path: Path) -> None:
    other = Image.new("RGB", SIZE, "blue")
    two_halves().save(path, save_all=True, append_images=[other], duration=90, lossless=True)


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    two_halves().save(path, exif=exif, quality=100)


def _clear(path: Path) -> None:
    image = two_halves("RGBA")
    image.putalpha(
        Image.fromarray(np.where(np.arange(SIZE[0]) < 10, 255, 0).astype(np.uint8)[None].repeat(12, 0))
    )
    image.save(path)


def write_readable(folder: Path) -> dict[str, tuple]:
    """Writes odd pictures that can be read.

    Returns:
        By name the colours of the left and of the right half as the released protocol reads them: what EXIF
        says of the orientation is ignored, transparent pixels are white, 16 bits are scaled to 8.
    """
    folder.mkdir(parents=True, exist_ok=True)
    two_halves().save(folder / "png_in_truth.jpg", format="PNG")
    two_halves("CMYK").save(folder / "cmyk.jpg", quality=100)
    two_halves("P").save(folder / "palette.png")
    Image.new("RGB", (1, 1), LEFT).save(folder / "one_pixel.png")
    two_halves().save(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    makers: dict[str, Callable] = {
        "sixteen_bits.png": _sixteen_bits, "moving.gif": _animated, "moving.webp": _animated,
        "turned.jpg": _turned, "clear.png": _clear,
    }  # fmt: skip
    for name, make in makers.items():
        make(folder / name)
    names = [
        "png_in_truth.jpg",
        "cmyk.jpg",
        "palette.png",
        "moving.gif",
        "moving.webp",
        "turned.jpg",
        ODD_NAME,
    ]
    colours = dict.fromkeys(names, (LEFT, RIGHT))
    return colours | {
        "one_pixel.png": (LEFT, LEFT),
        "sixteen_bits.png": ((200,) * 3, (50,) * 3),
        "clear.png": (LEFT, (255,) * 3),
    }


def write_unreadable(folder: Path) -> dict[str, str]:
    """Writes what cannot be read; returns, by name, words of the reason."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("truncated.jpg", "truncated.png"):
        Image.fromarray(noise).save(folder / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<!doctype html><html>404</html>")
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "nowhere.jpg").symlink_to("not_there.jpg")
    os.mkfifo(folder / "pipe.jpg")
    write_bomb(folder / "bomb.png")
    return {
        "truncated.jpg": "truncated", "truncated.png": "cannot read", "empty.jpg": "cannot identify",
        "page.jpg": "cannot identify", "folder.jpg": "it is a folder", "loop.jpg": "symbolic link",
        "nowhere.jpg": "symbolic link", "pipe.jpg": "a pipe", "bomb.png": "megapixels",
    }  # fmt: skip


def write_bomb(path: Path) -> None:
    """A PNG of a few bytes whose header claims 2,500 megapixels."""
    Image.new("L", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 50_000, 50_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(bytes(content))
