"""Files made to do harm: nothing of them is run, followed or believed; one line says what is wrong."""

import csv
import io
import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from ltx.config import UserError
from ltx.main.baselines import imported
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common.figures import write_sheet
from ltx.main.runs.evaluation import read_part
from ltx.main.runs.files import read_json
from ltx.main.runs.mask_files import MaskUnit, read_map, read_notes, read_unit, unit_path, write_unit
from ltx.main.runs.run_folder import read_run
from ltx.main.runs.skipped import read_list, write_list
from ltx.models.published import holds_pair, training_state
from ltx.tests.models.test_safe_reading import RunsCode
from ltx.tests.support.bad_images import write_bomb

SIZE = (8, 8)
READERS = (read_unit, read_notes, lambda path: read_map(path.parents[1], 0, "pltx", SIZE))


@pytest.fixture
def mask_file(tmp_path):
    path = unit_path(tmp_path, range(2))
    masks = np.random.default_rng(0).random((2, 2, 2), dtype=np.float32)
    write_unit(path, MaskUnit(np.arange(2), np.arange(2), {"pltx": masks}))
    return path


def external_link(file, other):
    del file["token_mask/pltx"]
    file["token_mask/pltx"] = h5py.ExternalLink(str(other), "secret")


def external_group(file, other):
    del file["token_mask"]
    file["token_mask"] = h5py.ExternalLink(str(other), "/")


def external_storage(file, other):
    del file["token_mask/pltx"]
    file.create_dataset("token_mask/pltx", (2, 2, 2), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def virtual(file, other):
    del file["token_mask/pltx"]
    layout = h5py.VirtualLayout((2, 2, 2), "f4")
    layout[:] = h5py.VirtualSource(str(other), "secret", (2, 2, 2))
    file.create_virtual_dataset("token_mask/pltx", layout)


def soft_loop(file, other):
    del file["token_mask"]
    file["token_mask"] = h5py.SoftLink("/token_mask")


def vast(file, other):
    del file["token_mask/pltx"]
    file.create_dataset("token_mask/pltx", (10**12,), "f4", chunks=(1024,))


def vast_rows(file, other):
    del file["token_mask/pltx"]
    file.create_dataset("token_mask/pltx", (2, 10**6, 10**6), "f4", chunks=(1, 64, 64), compression="gzip")


def vast_extra(file, other):
    file.create_dataset("loss", (10**12,), "f8", chunks=(1024,))


@pytest.mark.parametrize(
    "harm",
    [external_link, external_group, external_storage, virtual, soft_loop, vast, vast_rows, vast_extra],
    ids=lambda harm: harm.__name__,
)
@pytest.mark.parametrize("read", READERS, ids=["unit", "notes", "map"])
def test_mask_files_lead_nowhere_and_take_no_more_memory_than_they_are(harm, read, mask_file, tmp_path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones((2, 2, 2), np.float32)
    with h5py.File(mask_file, "r+") as file:
        harm(file, other)
    with pytest.raises(UserError, match=r"000000-000001\.h5.*(elsewhere|another file|claims to hold)"):
        read(mask_file)


def test_maps_named_by_a_path_are_refused(mask_file, tmp_path):
    with h5py.File(mask_file, "r+") as file:
        file["token_mask"].move("pltx", "..")
    with pytest.raises(UserError, match="whose name is a path"):
        read_unit(mask_file)
    np.savez(tmp_path / "part.npz", index=np.arange(2), variants=np.array(["../../x"]))
    with pytest.raises(UserError, match="whose name is a path"):
        read_part(tmp_path / "part.npz")


def test_a_zip_bomb_of_scores_is_not_unpacked(tmp_path):
    """2 GB of zeros in 2 MB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**28,)})
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("index.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(2**7):
            member.write(bytes(2**24))
    with pytest.raises(UserError, match=r"bomb\.npz: it would take 2147483\d+ bytes"):
        read_part(tmp_path / "bomb.npz")


def test_imported_maps_claim_no_more_than_they_are(tmp_path):
    path = tmp_path / "map.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        )
        file.write(bytes(64))
    with pytest.raises(UserError, match=r"cannot read the map .*map\.npy"):
        imported.read_map(path)
    with open(path, "wb") as file:
        np.savez_compressed(file, bomb=np.zeros((100, 100)))
    with pytest.raises(UserError, match=r"map\.npy: it is a \.npz archive"):
        imported.read_map(path)
    with open(path, "wb") as file:
        np.save(file, np.array([[RunsCode(tmp_path / "ran")]], dtype=object))
    with pytest.raises(UserError, match=r"cannot read the map .*map\.npy"):
        imported.read_map(path)
    assert not (tmp_path / "ran").exists()
    write_bomb(tmp_path / "map.png")
    with pytest.raises(UserError, match=r"cannot read the map .*map\.png"):
        imported.read_map(tmp_path / "map.png")


@pytest.mark.parametrize("name", ["../../secret.png", "/{root}/secret.png"])
def test_maps_are_looked_for_in_their_folder_alone(name, tmp_path):
    (tmp_path / "maps" / "inner").mkdir(parents=True)
    np.save(tmp_path / "secret.npy", np.eye(4))
    name = name.format(root=str(tmp_path).lstrip("/"))
    options = BaselineOptions(method="import", maps_path=tmp_path / "maps" / "inner")
    with pytest.raises(UserError, match="has no map for 1 of 1 images"):
        imported.check_maps(options, [name])


def test_published_checkpoints_run_no_code(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "hostile.ckpt"
    torch.save({"state_dict": {}, "optimizer_states": [RunsCode(marker)]}, path)
    for read in (holds_pair, lambda path: training_state(path, ["a"])):
        with pytest.raises(UserError, match=r"refused .*hostile\.ckpt"):
            read(path)
    assert not marker.exists()


def test_scores_run_no_code(tmp_path):
    marker = tmp_path / "ran"
    np.savez(tmp_path / "part.npz", index=np.array([RunsCode(marker)], dtype=object))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(RunsCode(marker)))
    for name in ("part.npz", "bare.npz"):
        with pytest.raises(UserError, match=name):
            read_part(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "NaN", "null", "[1]"])
def test_json_of_any_depth_is_one_line(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json"):
        read_run(tmp_path)


def test_csv_keeps_formulas_for_programs(tmp_path):
    """Names are keys: they come back as they are, quotes, commas and line ends too."""
    names = ["=1+1.png", "+a.png", "-b.png", "@c.png", 'a,"b".png', "two\nlines.png", "\ttab.png"]
    write_list(tmp_path / "skipped.csv", {name: f"why {name}" for name in names})
    assert read_list(tmp_path / "skipped.csv") == {name: f"why {name}" for name in names}
    with open(tmp_path / "skipped.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == names


def test_names_in_sheets_are_text_not_formulas(tmp_path, drawing):
    """Matplotlib sets what stands between dollars as mathematics, and fails where it is none."""
    cell = np.zeros((4, 4, 3))
    write_sheet(tmp_path / "sheet.png", [[cell]], [r"a$\nothing{$"], [r"$\frac{$ x"])
    with Image.open(tmp_path / "sheet.png") as image:
        assert min(image.size) > 10


def test_json_that_is_whole_is_read(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "run.json") == {"a": 1}
