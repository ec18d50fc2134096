"""Run folders: what they record, and that another configuration is refused with the difference named."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ltx import config
from ltx.config import UserError
from ltx.main.common.options import option
from ltx.main.runs.build_models import settled
from ltx.main.runs.files import write_json
from ltx.main.runs.run_folder import git_commit, open_run, read_run, resolved_options, versions
from ltx.main.seg_classification.options import FinetuneOptions

IDENTITY = {"explainee": "abc", "dataset": {"kind": "digits", "split": "test"}}


def test_record(tmp_path):
    options = FinetuneOptions(default_root_dir=Path("/some/where"), max_images=3)
    run = open_run(tmp_path / "run", options, IDENTITY, {"method": "ltx", "path": Path("x"), "sizes": (1, 2)})
    assert read_run(tmp_path / "run") == run
    assert run["options"]["max_images"] == 3 and run["options"]["default_root_dir"] == "/some/where"
    assert run["options"].keys() == resolved_options(options).keys()
    assert run["method"] == "ltx" and run["path"] == "x" and run["sizes"] == [1, 2]
    assert run["identity"]["explainee"] == "abc" and len(run["hash"]) == 64
    assert {"python", "torch", "timm", "numpy", "commit"} <= run["versions"].keys()
    assert run["command"][len(run["command"]) - len(sys.argv[1:]) :] == sys.argv[1:]
    assert run["created"].endswith("+00:00")


def test_the_same_run_goes_on(tmp_path):
    first = open_run(tmp_path, FinetuneOptions(), IDENTITY, {"note": 1})
    again = open_run(tmp_path, FinetuneOptions(), IDENTITY, {"note": 2})
    assert again == first  # what was written first stands


@pytest.mark.parametrize(
    "free",
    [{"device": "cpu"}, {"num_workers": 7}, {"batch_size": 3}, {"verbose": True}, {"evaluate": False},
     {"num_shards": 4, "shard_index": 1}, {"explainee_checkpoint": Path("x")}, {"run_name": "x"}],
    ids=str,
)  # fmt: skip
def test_what_changes_no_result_may_change(tmp_path, free):
    open_run(tmp_path, FinetuneOptions(), IDENTITY)
    open_run(tmp_path, FinetuneOptions(**free), IDENTITY)


def test_options_that_an_older_version_did_not_have_count_as_their_defaults(tmp_path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Newer(FinetuneOptions):
        shine: float = option(0.0, "a new option")

    first = open_run(tmp_path, FinetuneOptions(), IDENTITY)
    assert open_run(tmp_path, Newer(), IDENTITY) == first
    with pytest.raises(UserError, match=r"shine was None, now 1\.0"):
        open_run(tmp_path, Newer(shine=1.0), IDENTITY)
    with pytest.raises(UserError, match="seed was 42, now 1"):
        open_run(tmp_path, Newer(seed=1), IDENTITY)


@pytest.mark.parametrize(
    "changes, difference",
    [
        ({"n_epochs_to_optimize_stage_b": 10}, "n_epochs_to_optimize_stage_b was 25, now 10"),
        ({"finetune_lr": 1e-4}, "finetune_lr was 5e-05, now 0.0001"),
        ({"seed": 1}, "seed was 42, now 1"),
        ({"max_images": 5}, "max_images was None, now 5"),
        ({"unit_size": 8}, "unit_size was 256, now 8"),
        ({"mask_fill": "blur"}, "mask_fill was black, now blur"),
    ],
    ids=str,
)
def test_another_configuration_is_refused(tmp_path, changes, difference):
    open_run(tmp_path, settled(FinetuneOptions()), IDENTITY)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError, match="holds a run of another configuration") as error:
        open_run(tmp_path, settled(FinetuneOptions(**changes)), IDENTITY)
    assert f"({difference})" in str(error.value) and str(tmp_path) in str(error.value)
    assert "--run-name" in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "run.json").read_bytes() == before


def test_other_weights_or_images_are_refused(tmp_path):
    open_run(tmp_path, FinetuneOptions(), IDENTITY)
    with pytest.raises(UserError, match="explainee was abc, now xyz"):
        open_run(tmp_path, FinetuneOptions(), IDENTITY | {"explainee": "xyz"})
    with pytest.raises(UserError, match=r"dataset.split was test, now train"):
        open_run(tmp_path, FinetuneOptions(), IDENTITY | {"dataset": {"kind": "digits", "split": "train"}})


def test_no_run_and_damaged_runs(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        read_run(tmp_path / "nothing")
    (tmp_path / "run.json").write_text('{"hash": "a')
    with pytest.raises(UserError, match=r"run.json is damaged"):
        read_run(tmp_path)


def test_json_is_readable_and_whole(tmp_path):
    write_json(tmp_path / "a" / "x.json", {"b": [1, None]})
    assert json.loads((tmp_path / "a" / "x.json").read_text()) == {"b": [1, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a" / "x.json", {"b": object()})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.json"]


def test_commit(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == "unknown"
    git("init")
    (tmp_path / "f").write_text("1")
    git("add", ".")
    git("commit", "-m", "x")
    clean = git_commit()
    assert len(clean) == 40 and versions()["commit"] == clean
    (tmp_path / "f").write_text("2")
    assert git_commit() == clean + "+"
