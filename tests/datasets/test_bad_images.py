"""The corpus of odd and of bad pictures: right pixels, or a reason; one never costs the others."""

import errno

import numpy as np
import pytest
import torch
from PIL import Image

from ltx.config import UserError
from ltx.datasets.base import BadImageError
from ltx.datasets.build import BAD, batches
from ltx.datasets.imagenet import open_folder
from ltx.datasets.pictures import PictureFiles, file_of, shown_name
from ltx.tests.support.bad_images import ODD_NAME, two_halves, write_bomb, write_readable, write_unreadable


def test_every_odd_picture_has_the_right_pixels(tmp_path):
    colours = write_readable(tmp_path / "set")
    images = open_folder(tmp_path / "set", (12, 20))
    assert sorted(images.names) == sorted(colours)
    for index, name in enumerate(images.names):
        pixels = 255 * images[index]["image"]
        tolerance = 30 if name in ("palette.png", "moving.gif") else 8
        for part, colour in zip((pixels[:, :, 1:8], pixels[:, :, 12:19]), colours[name], strict=True):
            np.testing.assert_allclose(part.mean((1, 2)), colour, atol=tolerance, err_msg=name)


def test_bad_pictures_are_named_with_a_reason_and_leave_the_others_alone(tmp_path):
    colours, reasons = write_readable(tmp_path / "set"), write_unreadable(tmp_path / "set")
    images = open_folder(tmp_path / "set", (12, 20))
    assert sorted(images.names) == sorted([*colours, *reasons])
    found, pixels = {}, {}
    for batch in batches(images, range(len(images)), 4, 0, False, skip_bad=True):
        for row, index in enumerate(batch["index"].tolist()):
            found[images.names[index]] = batch[BAD][row]
            pixels[images.names[index]] = batch["image"][row]
    assert {name for name, why in found.items() if why} == set(reasons)
    for name, words in reasons.items():
        assert words in found[name] and name in found[name] and "\n" not in found[name]
        assert not pixels[name].any()
    for name in colours:
        assert torch.equal(pixels[name], images[images.names.index(name)]["image"])


def test_without_skipping_the_first_bad_picture_ends_the_batches(tmp_path):
    two_halves().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    images = open_folder(tmp_path, (8, 8))
    with pytest.raises(UserError, match=r"^cannot read image .*b\.png"):
        list(batches(images, [0, 1], 1, 0))
    with pytest.raises(UserError, match=r"^cannot read image .*b\.png"):
        list(batches(images, [0, 1], 1, 1))


def test_names_that_are_no_utf_8_are_shown_and_found_again(tmp_path):
    write_readable(tmp_path)
    assert ODD_NAME.isascii() and file_of(tmp_path, ODD_NAME).is_file()
    assert shown_name(file_of(tmp_path, ODD_NAME).name) == ODD_NAME
    assert shown_name("größe.png") == "größe.png"
    pictures = PictureFiles.of([file_of(tmp_path, ODD_NAME)], (12, 20))
    assert pictures.names == [ODD_NAME] and pictures[0]["image"].shape == (3, 12, 20)


@pytest.mark.parametrize(
    ("error", "of_the_image"),
    [
        (OSError(errno.EIO, "broken disk"), False),
        (OSError(errno.EMFILE, "too many open files"), False),
        (MemoryError(), False),
        (OSError(errno.EACCES, "denied"), True),
        (OSError("image file is truncated"), True),
        (SyntaxError("broken PNG"), True),
    ],
)
def test_a_broken_machine_is_no_bad_image(error, of_the_image, tmp_path, monkeypatch):
    """Else a disk that fails for a minute would cost a run thousands of images."""
    two_halves().save(tmp_path / "a.png")
    images = open_folder(tmp_path, (8, 8))

    def fail(*_):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"a\.png") as caught:
        images[0]
    assert isinstance(caught.value, BadImageError) == of_the_image


def test_a_set_whose_folder_is_gone_is_no_set_of_bad_images(tmp_path):
    (tmp_path / "set").mkdir()
    two_halves().save(tmp_path / "set" / "a.png")
    two_halves().save(tmp_path / "set" / "b.png")
    images = open_folder(tmp_path / "set", (8, 8))
    (tmp_path / "set" / "a.png").unlink()
    with pytest.raises(BadImageError, match=r"no such image: .*a\.png"):
        images[0]
    (tmp_path / "set").rename(tmp_path / "moved")
    with pytest.raises(UserError) as caught:
        images[1]
    assert not isinstance(caught.value, BadImageError)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "a/../../outside.png"])
def test_labels_name_no_file_outside_the_set(name, tmp_path):
    (tmp_path / "set").mkdir()
    two_halves().save(tmp_path / "outside.png")
    (tmp_path / "labels.csv").write_text(f"img_name,label\n{name},1\n")
    with pytest.raises(UserError, match="which is outside"):
        open_folder(tmp_path / "set", (8, 8))


def test_pictures_are_checked_before_any_work(tmp_path):
    two_halves().save(tmp_path / "a.png")
    write_bomb(tmp_path / "b.png")
    pictures = PictureFiles.of([tmp_path], (8, 8))
    with pytest.raises(BadImageError, match="megapixels"):
        pictures.check()
    assert list(pictures.check(skip=True)) == [1]
    with pytest.raises(BadImageError, match="megapixels"):
        PictureFiles.of([tmp_path / "b.png"], (8, 8)).check(skip=True)
