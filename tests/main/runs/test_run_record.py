"""Records of JSON files: typed fields, unknown keys kept, one line where something is wrong."""

from pathlib import Path

import pytest

from ltx.config import UserError
from ltx.main.runs.run_record import MaskRunRecord, RunRecord, SummaryRecord, check

PATH = Path("run.json")
RUN = {"hash": "abc", "identity": {}, "options": {"early_stop": True}}
MASKS = RUN | {
    "dataset": {"kind": "digits", "split": "test", "n_images": 3},
    "explainee": {"name": "vit_digits", "checkpoint": None, "sha256": "0"},
    "score_class": "explained",
    "n_images": 3,
    "input_size": [64, 64],
}
SUMMARY = {
    "protocol": "perturbation",
    "settings": {"fill": "black", "excluded": 0},
    "run_hash": "abc",
    "rows": {"last": {"POS": {"mean": 1, "n": 3, "higher_is_better": False}}},
}


def test_fields_defaults_and_unknown_keys():
    record = MaskRunRecord.of(PATH, MASKS | {"method": "ltx", "of a later version": [1]})
    assert (record.hash, record.method, record.n_images, record.candidates) == ("abc", "ltx", 3, {})
    assert record.early_stop and record.explained_class == "predicted"
    assert record["of a later version"] == [1] == record.get("of a later version")
    assert record["hash"] == "abc" and record.get("unit_size", 5) == 5 and record.unit_size is None
    target = RunRecord.of(PATH, RUN | {"options": {"train_model_by_target_gt_class": True}})
    assert target.explained_class == "target" and not target.early_stop


@pytest.mark.parametrize(
    "change, words",
    [
        ({"hash": None}, "is damaged: 'hash' is None"),
        ({"n_images": True}, "is damaged: 'n_images' is True"),
        ({"n_images": 3.5}, "is damaged: 'n_images' is 3.5"),
        ({"dataset": {"kind": 5}}, "is damaged: 'dataset.kind' is 5"),
        ({"dataset": {}}, "has no 'kind' in 'dataset'"),
        ({"dataset": {"kind": "files", "names": ["a", 1]}}, "is damaged: 'dataset.names.1' is 1"),
        ({"candidates": {"last": "many"}}, "is damaged: 'candidates.last' is 'many'"),
        ({"explainer": []}, r"is damaged: 'explainer' is \[\]"),
        ({"input_size": [64, "64"]}, "is damaged: 'input_size.1' is '64'"),
    ],
)  # fmt: skip
def test_damaged_records_are_one_line(change, words):
    with pytest.raises(UserError, match=rf"^run\.json {words}$"):
        MaskRunRecord.of(PATH, MASKS | change)


def test_missing_fields_and_other_things_than_records():
    with pytest.raises(UserError, match=r"^run\.json has no 'options'$"):
        RunRecord.of(PATH, {"hash": "abc", "identity": {}})
    with pytest.raises(UserError, match=r"^run\.json is damaged: it is \[\]$"):
        RunRecord.of(PATH, [])


@pytest.mark.parametrize("mean", ["1", float("nan"), True, [1]])
def test_figures_are_numbers(mean):
    check(PATH, SUMMARY, SummaryRecord)
    rows = {"last": {"POS": {"mean": mean, "n": 3, "higher_is_better": False}}}
    with pytest.raises(UserError, match=r"'rows\.last\.POS\.mean' is .*; do it again"):
        check(PATH, SUMMARY | {"rows": rows}, SummaryRecord, "do it again")
