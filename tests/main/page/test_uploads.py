"""What visitors hand over: pictures within limits, and nothing from outside the folder."""

import os
import struct
import time
import zlib

import pytest
from PIL import Image

from ltx.config import UserError
from ltx.main.page.uploads import LONGEST_SIDE, read_upload, sweep


def png_of(path, width, height):
    """A PNG that says it has this size, in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


def read(path, folder, megabytes=1, megapixels=2):
    return read_upload(path, folder, megabytes, megapixels)


def test_a_picture_is_upright_rgb_and_small(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (1500, 800), 90).save(folder / "grey.jpg", exif=exif)
    picture = read(folder / "grey.jpg", folder)
    assert picture.mode == "RGB" and picture.size == (546, LONGEST_SIDE)


@pytest.mark.parametrize(
    "size", [(20_000, 10_000), (2_000, 1_001), (60_000, 60_000)], ids=["200 MP", "just above", "bomb"]
)
def test_a_large_picture_is_refused_before_it_is_decoded(size, folder):
    path = png_of(folder / "large.png", *size)
    with pytest.raises(UserError, match=r"^large\.png has more than 2 megapixels; make it smaller first$"):
        read(path, folder)


def test_a_large_file_is_refused(folder):
    (folder / "long.jpg").write_bytes(bytes(1_000_001))
    with pytest.raises(UserError, match=r"^long\.jpg has more than 1 MB"):
        read(folder / "long.jpg", folder)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8\xff"]
)
def test_no_picture_is_one_line_without_the_folder(content, folder):
    (folder / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"^a\.jpg is no picture") as caught:
        read(folder / "a.jpg", folder)
    assert str(folder) not in str(caught.value)


def test_a_truncated_picture_is_one_line_without_the_folder(folder):
    Image.effect_noise((300, 300), 60).save(folder / "cut.png")
    whole = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.png") as caught:
        read(folder / "cut.png", folder)
    assert str(folder) not in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_outside_the_folder_is_read(folder):
    Image.new("RGB", (9, 9)).save(folder.parent / "secret.png")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    for path in (
        folder.parent / "secret.png",
        folder / ".." / "secret.png",
        folder / "link.png",
        folder,
        "/dev/zero",
    ):
        with pytest.raises(UserError, match="not here any more"):
            read(path, folder)


def test_old_files_go_and_then_the_oldest(folder):
    for age, name in enumerate(("new", "middle", "old", "ancient")):
        (folder / name).write_bytes(bytes(10))
        os.utime(folder / name, (1e9 - 100 * age,) * 2)
    now = 1e9 - 250
    age_of_ancient = time.time() - now
    sweep(folder, oldest=age_of_ancient)
    assert sorted(path.name for path in folder.iterdir()) == ["middle", "new", "old"]
    sweep(folder, oldest=age_of_ancient, full=20)
    assert sorted(path.name for path in folder.iterdir()) == ["middle", "new"]
    sweep(folder, oldest=0, keep={folder / "new"})
    assert [path.name for path in folder.iterdir()] == ["new"]
