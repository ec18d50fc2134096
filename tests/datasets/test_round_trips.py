"""What is written is what is read again, whatever names and numbers: manifests, masks, weights, scores."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ltx.datasets.manifest import from_manifest, read_names
from ltx.main.runs.evaluation import read_part, write_part
from ltx.main.runs.mask_files import MaskUnit, read_unit, unit_path, write_unit
from ltx.main.runs.run_folder import write_manifest
from ltx.main.runs.tables import write_per_image
from ltx.models.checkpoints import load_safetensors, load_state, load_weights, save_safetensors, save_state
from ltx.tests.support.mutations import DETERMINISTIC

# File names as hostile as a file system allows: quotes, commas, line breaks, formulas, markup, any script.
NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20)
HOSTILE = [
    "=1+1",
    '"',
    "a,b",
    "x\r\ny",
    "\ufeffa",
    " ",
    "<script>",
    "'; --",
    "../x",
    "\u202egpj.exe",
    "\r",
    "\n",
]
KEYS = st.text("abc_.xyz0", min_size=1, max_size=8).filter(lambda key: key.strip(".") == key)
VALUES = st.floats(allow_nan=False, allow_infinity=False, width=32)
MATRICES = arrays.arrays(np.float32, (2, 2), elements=VALUES)


def names_of(n: int):
    return st.lists(NAMES | st.sampled_from(HOSTILE), min_size=1, max_size=n, unique=True)


@DETERMINISTIC
@given(names_of(6))
def test_manifests(tmp_path, names):
    images, path = SimpleNamespace(names=names, labels=list(range(len(names)))), tmp_path / "manifest.csv"
    write_manifest(path, images, range(len(names)))
    assert read_names(path) == names
    backwards = list(range(len(names)))[::-1]
    write_manifest(path, images, backwards)

    class Set(SimpleNamespace):
        def __len__(self):
            return len(self.names)

    assert from_manifest(path, Set(names=names)) == backwards


@DETERMINISTIC
@given(st.data())
def test_mask_files(tmp_path, data):
    n, variants = data.draw(st.integers(1, 3)), data.draw(st.lists(KEYS, min_size=1, max_size=3, unique=True))
    unit = MaskUnit(
        np.array(data.draw(st.lists(st.integers(0, 2**40), min_size=n, max_size=n))),
        np.array(data.draw(st.lists(st.integers(0, 2**40), min_size=n, max_size=n))),
        {v: data.draw(arrays.arrays(np.float32, (n, 2, 3), elements=VALUES)) for v in variants},
        {},
        {"loss": data.draw(arrays.arrays(np.float32, (n, 4), elements=VALUES))},
        {"method": data.draw(NAMES)},
    )
    path = unit_path(tmp_path, range(n))
    write_unit(path, unit)
    again = read_unit(path)
    np.testing.assert_array_equal(again.index, unit.index)
    np.testing.assert_array_equal(again.classes, unit.classes)
    np.testing.assert_array_equal(again.arrays["loss"], unit.arrays["loss"])
    assert again.attributes["method"] == unit.attributes["method"]
    assert again.token_masks.keys() == unit.token_masks.keys()
    for variant, masks in unit.token_masks.items():
        np.testing.assert_array_equal(again.token_masks[variant], masks)


@DETERMINISTIC
@given(
    st.dictionaries(KEYS, arrays.arrays(np.float32, (2, 2), elements=VALUES), min_size=1, max_size=3), NAMES
)
def test_weights(tmp_path, values, word):
    tensors = {key: torch.from_numpy(value) for key, value in values.items()}
    path, metadata = (
        tmp_path / "w.safetensors",
        {"word": word, "numbers": [1, 2.5, None], "deep": {"a": True}},
    )
    save_safetensors(path, tensors, metadata)
    loaded, said = load_safetensors(path)
    assert said == metadata and loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
    save_state(tmp_path / "s.pt", {"state_dict": tensors, "rows": [{"epoch": 0, word: 1.5}]})
    assert load_state(tmp_path / "s.pt")["rows"] == [{"epoch": 0, word: 1.5}]
    plain = load_weights(tmp_path / "s.pt")
    assert all(torch.equal(plain[key.removeprefix("module.")], value) for key, value in tensors.items())


@DETERMINISTIC
@given(arrays.arrays(np.float64, (2, 3, 2), elements=st.floats(width=64)))
def test_scores_of_a_mask_file(tmp_path, values):
    path = tmp_path / "parts" / "x.npz"
    write_part(path, {"index": np.arange(3), "values": values, "metrics": np.array(["POS", "NEG"])})
    again = read_part(path)
    np.testing.assert_array_equal(again["values"], values)
    assert again["metrics"].tolist() == ["POS", "NEG"]


@DETERMINISTIC
@given(names_of(5), st.data())
def test_per_image_csv(tmp_path, names, data):
    """Any name comes back, numbers to 6 digits, NaN as nothing."""
    floats = st.floats(-1e6, 1e6) | st.just(math.nan)
    rows = [[i, name, data.draw(floats)] for i, name in enumerate(names)]
    path: Path = tmp_path / "per_image.csv"
    write_per_image(path, ["index", "image", "POS"], rows)
    with open(path, newline="", encoding="utf-8") as file:
        again = list(csv.DictReader(file))
    assert [(int(row["index"]), row["image"]) for row in again] == list(enumerate(names))
    for row, (_, _, value) in zip(again, rows, strict=True):
        assert row["POS"] == "" if math.isnan(value) else math.isclose(float(row["POS"]), value, rel_tol=1e-5)
