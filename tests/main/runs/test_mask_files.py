"""Mask files: what is written is what is read, whole or not at all."""

import h5py
import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.main.runs.mask_files import (
    FORMAT_VERSION,
    MaskUnit,
    read_unit,
    unit_files,
    unit_path,
    units,
    write_unit,
)
from ltx.models.masking import upsample


def unit(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return MaskUnit(
        index=np.arange(10, 10 + n),
        classes=rng.integers(0, 1000, n),
        token_masks={name: rng.random((n, 3, 4), dtype=np.float32) for name in ("pltx", "best_pos")},
        saliency={"grad_cam": rng.normal(size=(n, 12, 16)).astype(np.float32)},
        arrays={"label": np.arange(n), "loss": rng.random((n, 7)), "steps": np.full(n, 7)},
        attributes={"method": "ltx", "input_size": [12, 16], "run_hash": "abc"},
    )


def test_round_trip(tmp_path):
    path, made = tmp_path / "masks" / "000010-000014.h5", unit()
    write_unit(path, made)
    read = read_unit(path)
    for name in ("index", "classes"):
        values = getattr(read, name)
        assert values.dtype == np.int64 and np.array_equal(values, getattr(made, name))
    for name in ("token_masks", "saliency", "arrays"):
        first, second = getattr(made, name), getattr(read, name)
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[key], second[key]) for key in first)
    assert {value.dtype for value in (read.token_masks | read.saliency).values()} == {np.dtype("float32")}
    assert read.attributes["method"] == "ltx" and list(read.attributes["input_size"]) == [12, 16]
    assert sorted(read.variants) == ["best_pos", "grad_cam", "pltx"]


def test_layout_on_disk(tmp_path):
    """Other tools read it with h5py alone."""
    write_unit(tmp_path / "u.h5", unit())
    with h5py.File(tmp_path / "u.h5") as file:
        assert {"index", "target", "token_mask", "saliency", "loss", "steps", "label"} == set(file)
        assert file["token_mask/pltx"].shape == (5, 3, 4) and file["saliency/grad_cam"].shape == (5, 12, 16)
        assert file["index"].dtype == file["target"].dtype == np.int64
        assert file.attrs["format_version"] == FORMAT_VERSION
        assert file.attrs["upsampling"] == "bilinear, align_corners=False"


def test_the_same_masks_give_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_unit(tmp_path / name, unit())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_maps_are_upsampled_token_masks_or_saliency_as_stored(tmp_path):
    made = unit()
    tokens = torch.from_numpy(made.token_masks["pltx"])[:, None]
    assert torch.equal(made.maps("pltx", (12, 16)), upsample(tokens, (12, 16))[:, 0])
    assert torch.equal(made.maps("pltx", (12, 16), slice(1, 3)), upsample(tokens[1:3], (12, 16))[:, 0])
    assert torch.equal(made.maps("grad_cam", (12, 16)), torch.from_numpy(made.saliency["grad_cam"]))
    with pytest.raises(UserError, match=r"'grad_cam' are \(12, 16\), wanted \(10, 10\)"):
        made.maps("grad_cam", (10, 10))


def test_shown_maps_are_scaled_unless_they_are_masks(tmp_path):
    made = unit()
    maps = made.maps("pltx", (12, 16))
    assert torch.equal(made.shown("pltx", maps), maps)
    shown = made.shown("grad_cam", made.maps("grad_cam", (12, 16)))
    assert shown.amin((1, 2)).tolist() == [0] * 5 and shown.amax((1, 2)).tolist() == [1] * 5


def test_a_write_that_fails_leaves_nothing_or_the_old_file(tmp_path):
    path = tmp_path / "masks" / "u.h5"
    broken = unit()
    broken.arrays["bad"] = np.array([object()])
    with pytest.raises(TypeError):
        write_unit(path, broken)
    assert list(tmp_path.rglob("*.*")) == []
    write_unit(path, unit())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_unit(path, broken)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "zeros", "missing"])
def test_damaged_files(tmp_path, damage):
    path = tmp_path / "u.h5"
    write_unit(path, unit())
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {"cut": content[:middle], "empty": b"", "text": b"hello" * 99, "missing": b"",
         "zeros": content[:800] + bytes(len(content) - 800)}[damage]
    )  # fmt: skip
    if damage == "missing":
        path.unlink()
    with pytest.raises(UserError, match=r"cannot read mask file .*u.h5"):
        read_unit(path)


def test_files_that_are_no_mask_files(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["other"] = [1, 2]
    with pytest.raises(UserError, match=r"a.h5"):
        read_unit(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["index"] = file["target"] = [1, 2]
    with pytest.raises(UserError, match="needs token_mask/<variant> or saliency/<variant>"):
        read_unit(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["index"] = file["target"] = [1, 2]
        file["token_mask/pltx"] = np.zeros((3, 2, 2))
    with pytest.raises(UserError, match="for each index"):
        read_unit(tmp_path / "c.h5")


def test_units_cover_every_image_once():
    assert units(10, 4) == [range(0, 4), range(4, 8), range(8, 10)]
    assert [i for unit in units(517, 256) for i in unit] == list(range(517))
    assert units(0, 4) == []


def test_file_names(tmp_path):
    assert unit_path(tmp_path, range(0, 256)) == tmp_path / "masks" / "000000-000255.h5"
    for part in units(600, 256)[::-1]:
        write_unit(unit_path(tmp_path, part), unit(len(part)))
    (tmp_path / "masks" / ".000000-000255.h5.abc.tmp").write_bytes(b"what a killed process left")
    assert [path.name for path in unit_files(tmp_path)] == [
        "000000-000255.h5",
        "000256-000511.h5",
        "000512-000599.h5",
    ]
    with pytest.raises(UserError, match="holds no mask files"):
        unit_files(tmp_path / "nothing")
