"""Tables, per-image rows and summaries."""

import csv

import numpy as np
import pytest

from ltx.config import UserError
from ltx.main.perturbation_eval.metrics import METRICS
from ltx.main.runs import evaluation, tables


def rows():
    means = np.arange(2.0 * len(METRICS)).reshape(2, -1)
    return tables.summary_rows(["pltx", "best_pos"], METRICS, means, 7)


def test_summary_rows():
    made = rows()
    assert made["pltx"]["POS"] == {"mean": 0.0, "n": 7, "higher_is_better": False}
    assert made["best_pos"]["NEG"] == {"mean": len(METRICS) + 1.0, "n": 7, "higher_is_better": True}


def test_means_leave_out_what_was_not_measured():
    made = rows()
    made["pltx"]["POS"]["mean"] = None
    means = tables.means_of(made)
    assert (
        "POS" not in means["pltx"]
        and means["pltx"]["NEG"] == 1.0
        and means["best_pos"]["POS"] == len(METRICS)
    )


def test_table():
    made = rows()
    made["pltx"]["POS"]["mean"] = None
    lines = tables.format_table(made, "title").splitlines()
    assert lines[0] == "title" and lines[1].split()[:5] == ["method", "POS", "↓", "NEG", "↑"]
    assert lines[2].split()[:3] == ["pltx", "-", "1.00"]
    assert lines[3].split()[:2] == ["best_pos", f"{len(METRICS):.2f}"]
    assert len({len(line) for line in lines[1:]}) == 1  # columns are flush


def test_per_image_rows(tmp_path):
    tables.write_per_image(tmp_path / "x.csv", ["a", "b"], [["n,m", 1 / 3], ["é", 123456.789]])
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["n,m", "0.333333"], ["é", "123457"]]


def test_summary_round_trip(tmp_path):
    curves = {"pltx": {"POS": [1]}}
    tables.write_summary(tmp_path, "perturbation", {"fill": "black"}, "hash", rows(), curves=curves)
    read = tables.read_summary(tmp_path)
    assert read["rows"] == rows() and read["curves"] == {"pltx": {"POS": [1]}} and read["run_hash"] == "hash"
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary.json is damaged .*; delete it"):
        tables.read_summary(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        tables.read_summary(tmp_path / "nothing")


@pytest.mark.parametrize("damage", ["cut", "text", "flipped"])
def test_damaged_parts(tmp_path, damage):
    path = tmp_path / "parts" / "0.npz"
    evaluation.write_part(path, {"values": np.random.default_rng(0).random(100)})
    assert np.array_equal(evaluation.read_part(path)["values"], np.random.default_rng(0).random(100))
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = (
        content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 20])
        + content[middle + 20 :]
    )
    path.write_bytes({"cut": content[:middle], "text": b"hello", "flipped": flipped}[damage])
    with pytest.raises(UserError, match=r"0.npz.*delete it"):
        evaluation.read_part(path)


def test_parts_cover_a_mask_file_and_a_whole_one_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "PART_IMAGES", 4)
    file = tmp_path / "masks" / "000010-000019.h5"
    spans = {path.name: span for path, span in evaluation.parts_of(tmp_path, file).items()}
    assert spans == {
        "000010-000013.npz": range(10, 14),
        "000014-000017.npz": range(14, 18),
        "000018-000019.npz": range(18, 20),
    }
    evaluation.write_part(tmp_path / "parts" / "000010-000019.npz", {"index": np.arange(10, 20)})
    assert list(evaluation.parts_of(tmp_path, file).values()) == [range(10, 20)]
    for name in ("masks.h5", "5-3.h5", "0-99999999999.h5"):
        with pytest.raises(UserError, match=rf"{name} is not named <first>-<last>\.h5"):
            evaluation.parts_of(tmp_path, tmp_path / "masks" / name)
