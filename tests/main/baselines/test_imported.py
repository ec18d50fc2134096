import dataclasses
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from ltx.config import UserError
from ltx.main.baselines.base import Batch
from ltx.main.baselines.imported import check_maps, imported, read_map, variant_name


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "My maps").mkdir()
    return tmp_path / "My maps"


@pytest.fixture
def of_folder(options, folder):
    return dataclasses.replace(options, maps_path=folder)


def load(names, options, size=(4, 6)):
    return imported(None, Batch(torch.zeros(len(names), 3, *size), None, names), options).numpy()


def test_npy_and_png_under_each_name(folder, of_folder):
    (folder / "sub").mkdir()
    maps = np.random.default_rng(0).random((4, 4, 6)).astype(np.float32)
    np.save(folder / "sub" / "a.npy", maps[0])
    np.save(folder / "b.npy", maps[1][None])
    np.save(folder / "c.jpg.npy", maps[2][..., None].astype(np.float64))
    Image.fromarray((maps[3] * 255).astype(np.uint8)).save(folder / "d.png")
    names = ["sub/a.jpg", "class/b.jpg", "c.jpg", "d.jpg"]
    check_maps(of_folder, names)
    found = load(names, of_folder)
    np.testing.assert_allclose(found[:3], maps[:3])
    np.testing.assert_array_equal(found[3], (maps[3] * 255).astype(np.uint8))


def test_sixteen_bit_and_grey_rgb_png(folder, of_folder):
    values = np.array([[0, 1000], [40000, 65535]], np.uint16)
    Image.fromarray(values).save(folder / "a.png")
    Image.fromarray(np.stack([values.astype(np.uint8)] * 3, -1)).save(folder / "b.png")
    np.testing.assert_array_equal(read_map(folder / "a.png"), values)
    np.testing.assert_array_equal(read_map(folder / "b.png"), values.astype(np.uint8))


def test_another_size_is_resized_and_said(folder, of_folder, caplog):
    np.save(folder / "a.npy", np.array([[0.0, 1.0], [0.0, 1.0]], np.float32))
    with caplog.at_level(logging.WARNING):
        found = load(["a.jpg"], of_folder)
    np.testing.assert_allclose(found[0], [[0, 0, 1 / 3, 2 / 3, 1, 1]] * 4, atol=1e-6)
    assert "a.npy is (2, 2) and is resized to (4, 6)" in caplog.text


def test_a_constant_map_is_said(folder, of_folder, caplog):
    np.save(folder / "a.npy", np.full((4, 6), 3.0))
    with caplog.at_level(logging.WARNING):
        load(["a.jpg"], of_folder)
    assert "a.npy is constant" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[1.0, np.nan], [0, 0]]), "NaN or infinities"),
        (np.array([[1.0, np.inf], [0, 0]]), "NaN or infinities"),
        (np.zeros((3, 4, 6)), "shape"),
        (np.zeros(6), "shape"),
        (np.array([["a", "b"], ["c", "d"]]), "not numbers"),
        (np.array([{}, 1], dtype=object), "cannot read"),
    ],
)
def test_broken_maps_are_named(folder, values, message):
    np.save(folder / "a.npy", values, allow_pickle=True)
    with pytest.raises(UserError, match=message) as error:
        read_map(folder / "a.npy")
    assert "a.npy" in str(error.value)


def test_colours_and_damage_are_named(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(
        folder / "a.png"
    )
    (folder / "b.png").write_bytes(b"no picture")
    (folder / "c.npy").write_bytes(b"\x93NUMPY")
    for name, message in (("a.png", "in colour"), ("b.png", "cannot read"), ("c.npy", "cannot read")):
        with pytest.raises(UserError, match=message) as error:
            read_map(folder / name)
        assert name in str(error.value)


def test_missing_maps_and_folders_are_named_at_once(folder, of_folder, options):
    np.save(folder / "a.npy", np.eye(4))
    with pytest.raises(UserError, match=r"no map for 2 of 3 images, first x/b.jpg"):
        check_maps(of_folder, ["a.jpg", "x/b.jpg", "c.jpg"])
    with pytest.raises(UserError, match="no such folder"):
        check_maps(dataclasses.replace(options, maps_path=folder / "none"), ["a.jpg"])
    with pytest.raises(UserError, match="--maps-path"):
        variant_name(options)


def test_variant_name_is_the_folders_in_snake_case(of_folder):
    assert variant_name(of_folder) == "my_maps"
    assert variant_name(dataclasses.replace(of_folder, maps_name="Other")) == "other"
