"""No script opens a connection without --download True, and a message says so where it is needed."""

import json
import shutil
import socket

import pytest

from ltx.main import demo, explain, merge_results, report
from ltx.main.baselines import run_baselines
from ltx.main.class_eval import run_class_eval
from ltx.main.perturbation_eval import run_perturbation_eval
from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt
from ltx.main.segmentation_eval import run_segmentation_eval, seg_stage_a, seg_stage_b

WITHOUT_WEIGHTS = "resnet18.tv_in1k"


@pytest.fixture
def connections(monkeypatch, tmp_path) -> list:
    """What asked for a connection; nobody gets one, and timm's cache is empty."""
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments)
        raise OSError("this test has no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", str(tmp_path / "hub"), raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return asked


def test_a_connection_would_be_seen(connections):
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("localhost", 9))
    with pytest.raises(OSError, match="no network"):
        socket.socket().connect(("127.0.0.1", 9))
    assert len(connections) == 2


def test_nothing_that_has_its_weights_opens_a_connection(
    connections, tiny_pair, run_script, places, write_images, no_drawing
):
    """Training, LTX, baselines, both evaluators, merging, the report and a picture, one after the other."""
    few = ["--max-images", 2, "--run-name", "run"]
    train = ["--n-epochs", 1, "--train-images", 4, "--val-images", 2, "--run-name", "new"]
    place = places / "data" / "results" / "run"
    images = write_images(["a.png"])
    pair = ["--explainee-model-name", "tiny", "--explainee-checkpoint", tiny_pair.explainee]
    pair += ["--explainer-checkpoint", tiny_pair.explainer, "--device", "cpu"]
    scripts = [
        (run_seg_cls, [*tiny_pair.flags, *train]),
        (run_seg_cls_opt, [*tiny_pair.flags, *few, "--n_epochs_to_optimize_stage_b", 2]),
        (run_segmentation_eval, [place, "--num-workers", 0]),
        (merge_results, [place]),
        (report, [place, "--output", places / "page.html", "--resamples", 100]),
        (explain, ["--input", images / "a.png", *pair]),
    ]
    for script, argv in scripts:
        done = run_script(script, *argv)
        assert done.code == 0, (script.__name__, done.err)
    assert connections == []


def flags_without_weights(script, pair, folder) -> list:
    """A command that needs the weights of `WITHOUT_WEIGHTS`, and has all else."""
    flags = ["--explainee-model-name", WITHOUT_WEIGHTS, "--default-root-dir", folder / "new"]
    if script in (run_seg_cls_opt, seg_stage_a, seg_stage_b, run_class_eval):
        flags += ["--explainer-checkpoint", pair.explainer]
    if script in (seg_stage_a, seg_stage_b, run_class_eval):
        return [*flags, "--dataset-type", "digits"]
    if script is run_baselines:
        flags += ["--method", "random"]
    if script is explain:
        return [*flags, "--input", folder / "images" / "a.png"]
    return [*flags, "--images-path", "digits"]


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    "script",
    [run_seg_cls, run_seg_cls_opt, seg_stage_a, seg_stage_b, run_class_eval, run_baselines, explain, demo],
    ids=lambda script: script.__name__.rpartition(".")[2],
)
def test_missing_weights_name_the_flag_and_nothing_is_tried_without_it(
    connections, tiny_pair, run_script, places, write_images, script, download
):
    write_images(["a.png"])
    flags = flags_without_weights(script, tiny_pair, places)
    error = run_script(script, *flags, *(["--download", "True"] if download else [])).error
    assert f"weights of '{WITHOUT_WEIGHTS}' are not in timm's cache" in error
    assert f"https://huggingface.co/timm/{WITHOUT_WEIGHTS}" in error
    assert ("add --download True to fetch them" in error) is not download
    assert bool(connections) is download


@pytest.mark.parametrize("download", [False, True])
def test_an_evaluator_whose_explainee_is_gone(
    connections, tiny_pair, run_script, places, no_drawing, download
):
    flags = ["--max-images", 2, "--run-name", "run", "--RUN-BASE-MODEL", "--evaluate", "False"]
    done = run_script(run_seg_cls_opt, *tiny_pair.flags, *flags)
    assert done.code == 0, done.err
    path = places / "data" / "results" / "run" / "run.json"
    run = json.loads(path.read_text())
    run["explainee"] |= {"name": WITHOUT_WEIGHTS, "checkpoint": None}
    path.write_text(json.dumps(run))
    shutil.rmtree(path.parent / "results", ignore_errors=True)
    error = run_script(run_perturbation_eval, path.parent, *(["--download"] if download else [])).error
    assert ("--download True" in error) is not download and bool(connections) is download
