"""The script, from the command line to mask files and scores."""

import json

import h5py
import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.main.baselines import base, run_baselines
from ltx.main.baselines.baseline_run import scaled as scaled_maps
from ltx.main.baselines.methods import BASELINES, parse_methods, resolve_methods
from ltx.main.runs.mask_files import read_unit, unit_files

FAST = "random,centre_gaussian,input_gradient,raw_attention"


@pytest.fixture
def run(run_script, digits_weights, tmp_path):
    """Runs the script on three digits with random weights."""

    def call(*more):
        return run_script(
            run_baselines, "--explainee-model-name", "vit_digits", "--explainee-checkpoint",
            digits_weights.explainee, "--max-images", "3", "--num-workers", "0", "--default-root-dir",
            tmp_path, *more,
        )  # fmt: skip

    return call


def test_methods_share_one_run_folder_and_are_scored(run, tmp_path):
    closing = run("--method", FAST, "--run-name", "r").closing
    assert closing["run"] == str(tmp_path / "r")
    assert set(closing["results"]) == set(FAST.split(","))
    (file,) = unit_files(tmp_path / "r")
    unit = read_unit(file)
    for name in FAST.split(","):
        maps = unit.saliency[name]
        assert maps.shape == (3, 64, 64) and maps.dtype == np.float32
        assert np.allclose(maps.min((1, 2)), 0) and np.allclose(maps.max((1, 2)), 1)
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["candidates"] == dict.fromkeys(FAST.split(","), 1)
    with h5py.File(file) as opened:
        assert json.loads(opened.attrs["candidates"]) == record["candidates"]


def test_goes_on_where_it_was_and_refuses_another_configuration(run, tmp_path):
    arguments = ("--method", "random", "--run-name", "r", "--unit-size", "1", "--evaluate", "False")
    run(*arguments)
    files = unit_files(tmp_path / "r")
    before = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    run(*arguments)
    after = [file.stat().st_mtime_ns for file in files]
    assert before[0] == after[0] and before[2] == after[2] and before[1] != after[1]
    assert "seed was 42, now 7" in run(*arguments, "--seed", "7").error


def test_does_not_depend_on_batches_units_or_shards(run, tmp_path):
    base_arguments = ("--method", "random,input_gradient", "--evaluate", "False")
    run(*base_arguments, "--run-name", "one")
    for shard in ("0", "1"):
        run(
            *base_arguments, "--run-name", "two", "--batch-size", "2", "--unit-size", "2", "--num-shards",
            "2", "--shard-index", shard,
        )  # fmt: skip
    (one,) = unit_files(tmp_path / "one")
    two = [read_unit(file) for file in unit_files(tmp_path / "two")]
    assert len(two) == 2
    for name, maps in read_unit(one).saliency.items():
        np.testing.assert_allclose(np.concatenate([unit.saliency[name] for unit in two]), maps, atol=1e-5)


def test_selection_stands_beside_the_map_with_its_number_of_candidates(run, tmp_path):
    results = run("--method", "input_gradient", "--run-name", "r", "--select-best-of", "4").closing["results"]
    assert results["input_gradient_best_pos"]["POS"] <= results["input_gradient"]["POS"]
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["candidates"] == {"input_gradient": 1, "input_gradient_best_pos": 4}
    chosen = read_unit(unit_files(tmp_path / "r")[0]).arrays["candidate_input_gradient_best_pos"]
    assert chosen.shape == (3,) and chosen.max() < 4


def test_randomised_weights_explain_another_model_and_are_named(run, tmp_path):
    run("--method", "input_gradient", "--run-name", "true", "--evaluate", "False")
    results = run("--method", "input_gradient", "--run-name", "r", "--randomise-weights").closing["results"]
    assert set(results) == {"input_gradient_randomised"}
    true, randomised = (read_unit(unit_files(tmp_path / name)[0]) for name in ("true", "r"))
    assert not np.allclose(
        true.saliency["input_gradient"], randomised.saliency["input_gradient_randomised"], atol=0.05
    )
    np.testing.assert_array_equal(true.classes, randomised.classes)


def test_imports_maps(run, tmp_path):
    (tmp_path / "theirs").mkdir()
    maps = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    for i, one in enumerate(maps):
        np.save(tmp_path / "theirs" / f"{i}.npy", one)
    results = run("--method", "import", "--maps-path", tmp_path / "theirs", "--run-name", "r").closing[
        "results"
    ]
    assert set(results) == {"theirs"}
    stored = read_unit(unit_files(tmp_path / "r")[0]).saliency["theirs"]
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    np.testing.assert_allclose(stored, (maps - low) / (high - low), atol=1e-6)
    (tmp_path / "theirs" / "2.npy").unlink()
    error = run("--method", "import", "--maps-path", tmp_path / "theirs", "--run-name", "s").error
    assert "no map for 1 of 3 images, first 2" in error
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "grad_kam"), "no such method (did you mean grad_cam?)"),
        (("--method", ","), "names no method"),
        (("--method", "import"), "--maps-path"),
        (("--method", "random", "--rise-masks", "0"), "--rise-masks must be at least 1"),
        (("--method", "random", "--select-best-of", "0"), "--select-best-of must be at least 1"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, arguments, message):
    assert message in run(*arguments, "--run-name", "r").error
    assert not (tmp_path / "r").exists()


def test_a_missing_package_is_named_with_its_command(run, monkeypatch):
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    assert "run 'pip install captum'" in run("--method", "smoothgrad").error
    assert "run 'pip install grad-cam'" in run("--method", "random,grad_cam").error


def test_all_is_what_the_architecture_allows(make_tiny, monkeypatch):
    monkeypatch.setattr(base, "find_spec", lambda name: True)
    every = set(BASELINES) - {"import"}
    assert set(resolve_methods(parse_methods("all"), make_tiny("vit"))) == every
    assert set(resolve_methods(["all"], make_tiny("deit"))) == every - {"transformer_attribution"}
    of_attention = {"raw_attention", "attention_rollout", "generic_attention", "legrad"}
    assert set(resolve_methods(["all"], make_tiny("resnet"))) == every - of_attention - {
        "transformer_attribution"
    }
    with pytest.raises(UserError, match="no global self-attention"):
        resolve_methods(["legrad"], make_tiny("resnet"))


def test_help_lists_every_method():
    for name in BASELINES:
        assert name in run_baselines.__doc__


def test_nan_counts_as_zero_and_is_said(caplog):
    maps = torch.rand(2, 4, 4)
    maps[1, 0, 0] = torch.nan
    scaled = scaled_maps(maps, "some_cam", ["a", "b"])
    assert scaled.isfinite().all() and scaled[1, 0, 0] == 0 and scaled[1].max() == 1
    assert "some_cam gave NaN or infinities for image b" in caplog.text


OWN = """
import torch

def middle(model, inputs, targets):
    return inputs.square().mean(1) + targets[:, None, None]

def broken(model, inputs, targets):
    return torch.zeros(1)

number = 3
"""


def test_a_function_of_a_module_is_scored_like_the_others(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_maps.py").write_text(OWN)
    arguments = ("--method", "random,own_maps:middle", "--run-name", "r")
    assert set(run(*arguments).closing["results"]) == {"random", "middle"}
    unit = read_unit(unit_files(tmp_path / "r")[0])
    assert unit.saliency["middle"].shape == (3, 64, 64)
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["methods"]["middle"] == "own_maps:middle"
    run(*arguments)  # goes on where it was
    (tmp_path / "own_maps.py").write_text(OWN + "\n# changed\n")
    assert "holds another run" in run(*arguments).error or "was" in run(*arguments).error
    for method, message in (
        ("own_maps:nothing", "has no attribute 'nothing'"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("own_maps:number", "a int cannot be called"),
        ("own_maps:broken", "gives maps of (1,); wanted (3, 64, 64)"),
    ):
        assert message in run("--method", method, "--run-name", "s").error
