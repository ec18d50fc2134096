"""Pictures of every kind that people have, and what is no picture at all."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from ltx.config import UserError
from ltx.datasets.build import rebuild
from ltx.datasets.pictures import MAX_MEGAPIXELS, PictureFiles, read_image

RED, GREEN = (200, 30, 40), (20, 180, 60)


def two_halves(mode: str = "RGB", size=(20, 12)) -> Image.Image:
    """Left half red, right half green."""
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (size[0] // 2, 0, *size))
    return image.convert(mode)


def halves_of(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(image).astype(int)
    return pixels[:, 1:8].mean((0, 1)), pixels[:, 12:19].mean((0, 1))


@pytest.mark.parametrize(
    ("mode", "name", "tolerance"),
    [("RGB", "a.png", 0), ("P", "a.png", 30), ("P", "a.gif", 30), ("CMYK", "a.jpg", 8), ("CMYK", "a.tif", 2)],
)
def test_colours_survive_whatever_the_mode(mode, name, tolerance, tmp_path):
    two_halves(mode).save(tmp_path / name, **({"quality": 100} if name.endswith("jpg") else {}))
    image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    left, right = halves_of(image)
    np.testing.assert_allclose(left, RED, atol=tolerance)
    np.testing.assert_allclose(right, GREEN, atol=tolerance)


def test_grey_becomes_three_equal_channels(tmp_path):
    Image.new("L", (9, 9), 77).save(tmp_path / "grey.png")
    assert set(read_image(tmp_path / "grey.png").getdata()) == {(77, 77, 77)}


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bits_are_scaled_not_clipped(name, tmp_path):
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(10, 0)
    Image.fromarray(ramp).save(tmp_path / name)
    pixels = np.asarray(read_image(tmp_path / name))
    np.testing.assert_allclose(pixels[0, :, 0], np.arange(256), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode, tmp_path):
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    image.paste((100, 100, 100, 255), (0, 0, 5, 10))
    image.convert(mode).save(tmp_path / "clear.png")
    pixels = np.asarray(read_image(tmp_path / "clear.png"))
    assert (pixels[:, :5] == 100).all()
    assert (pixels[:, 5:] == 255).all()


def test_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (10, 10), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.paste(1, (5, 0, 10, 10))
    image.save(tmp_path / "palette.png", transparency=0)
    pixels = np.asarray(read_image(tmp_path / "palette.png"))
    assert (pixels[:, :5] == 255).all()
    assert (pixels[:, 5:] == (200, 0, 0)).all()


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png"])
def test_of_an_animation_the_first_frame_is_read_and_that_is_said(name, tmp_path, caplog):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    pictures = PictureFiles.of([tmp_path / name], (16, 16))
    np.testing.assert_allclose(np.asarray(pictures.picture(0)).mean((0, 1)), RED, atol=3)
    assert f"{name}: only the first frame is used" in caplog.text


def test_exif_orientation_is_respected_where_asked(tmp_path):
    """Orientation 6: the camera was turned, so the stored left half is the picture's top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    two_halves().save(tmp_path / "turned.jpg", exif=exif, quality=100)
    stored, upright = (read_image(tmp_path / "turned.jpg", upright=way) for way in (False, True))
    assert (stored.size, upright.size) == ((20, 12), (12, 20))
    pixels = np.asarray(upright).astype(int)
    np.testing.assert_allclose(pixels[1:8].mean((0, 1)), RED, atol=8)
    np.testing.assert_allclose(pixels[12:19].mean((0, 1)), GREEN, atol=8)
    pictures = PictureFiles.of([tmp_path / "turned.jpg"], (24, 24))
    np.testing.assert_allclose(pictures[0]["image"][:, 2:8].mean((1, 2)) * 255, RED, atol=8)


def test_more_megapixels_than_any_camera_has_is_one_line(tmp_path):
    """A PNG whose header alone claims 200 megapixels: refused before a pixel is read."""
    path = tmp_path / "vast.png"
    Image.new("L", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 10_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=rf"vast\.png has more than {MAX_MEGAPIXELS} megapixels"):
        read_image(path)
    with pytest.raises(UserError, match="megapixels"):
        PictureFiles.of([path], (8, 8)).check()


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff\xe0 no more", b"%PDF-1.4\n"])
def test_what_is_no_picture_is_one_line(content, tmp_path):
    (tmp_path / "odd.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read image .*odd\.jpg") as caught:
        PictureFiles.of([tmp_path / "odd.jpg"], (8, 8)).check()
    assert "\n" not in str(caught.value)


def test_a_truncated_picture_is_one_line(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cannot read image .*cut\.png"):
        read_image(tmp_path / "cut.png")


def test_one_pixel_is_too_small_to_explain(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    pictures = PictureFiles.of([tmp_path / "dot.png"], (8, 8))
    for read in (pictures.check, lambda: pictures[0]):
        with pytest.raises(UserError, match=r"dot\.png is 1 x 1 pixels; each side needs at least 8"):
            read()


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (np.linspace(0, 1, 256, dtype=np.float32), "unit.tif"),
        (np.arange(256, dtype=np.float32), "floats.tif"),
        (np.arange(256, dtype=np.int32), "integers.tif"),
        (np.arange(256, dtype=np.int32) * 257, "of_16.tif"),
        (np.arange(256, dtype=np.int32) * 2**23, "of_32.tif"),
    ],
)
def test_32_bits_show_the_same_picture(values, name, tmp_path):
    Image.fromarray(values[None].repeat(10, 0)).save(tmp_path / name)
    pixels = np.asarray(read_image(tmp_path / name))[0, :, 0]
    expected = np.arange(256) / (2 if name == "of_32.tif" else 1)
    np.testing.assert_allclose(pixels, expected, atol=1)


@pytest.mark.parametrize("name", ["a.avif", "a.jfif", "a.jp2", "a.pgm", "a.webp", "A.JPEG"])
def test_every_extension_is_found_in_folders(name, tmp_path):
    if name.endswith("avif") and not features.check("avif"):
        pytest.skip("this Pillow knows no AVIF")
    extension = name.lower().rsplit(".", 1)[1]
    image = two_halves("L" if extension == "pgm" else "RGB", size=(64, 32))
    image.save(tmp_path / name, **({"format": "JPEG"} if extension == "jfif" else {}))
    pictures = PictureFiles.of([tmp_path], (8, 8))
    assert pictures.names == [name] and pictures.check() == {}
    assert pictures[0]["image"].shape == (3, 8, 8)


def test_what_a_folder_leaves_out_is_named_and_counted(tmp_path, caplog):
    two_halves().save(tmp_path / "a.png")
    (tmp_path / "more" / "still").mkdir(parents=True)
    two_halves().save(tmp_path / "more" / "still" / "b.png")
    for name in (".hidden.png", "film.mp4", "raw.dng", "labels.csv"):
        (tmp_path / name).write_bytes(b"")
    assert PictureFiles.of([tmp_path], (8, 8)).names == ["a.png"]
    assert ".hidden.png, film.mp4, more and 1 more" in caplog.text and "labels.csv" not in caplog.text
    pictures = PictureFiles.of([tmp_path], (8, 8), recursive=True)
    assert pictures.names == ["a.png", "more/still/b.png"]


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.linspace(0, 3, 100, dtype=np.float32).reshape(10, 10)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match=r"float\.tif: floating-point pixels"):
        read_image(tmp_path / "float.tif")


def test_files_and_folders_become_one_set_that_is_found_again(tmp_path):
    for name in ("one/b.png", "one/a.jpg", "two/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        two_halves().save(tmp_path / name)
    (tmp_path / "one" / "notes.txt").write_text("no picture")
    inputs = [tmp_path / "one", tmp_path / "two" / "c.png", tmp_path / "one" / "a.jpg"]
    pictures = PictureFiles.of(inputs, (8, 6))
    assert pictures.names == ["one/a.jpg", "one/b.png", "two/c.png"]
    assert pictures[2]["image"].shape == (3, 8, 6)
    again = rebuild(pictures.describe(), (8, 6))
    assert (again[1]["image"] == pictures[1]["image"]).all()


def test_nothing_there_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no pictures in .*empty"):
        PictureFiles.of([tmp_path / "empty"], (8, 8))
    with pytest.raises(UserError, match=r"no such picture or folder: .*nothing\.jpg"):
        PictureFiles.of([tmp_path / "nothing.jpg"], (8, 8))
