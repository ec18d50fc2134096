"""Scripts as processes of their own: from anywhere, in the published form, killed, with what is shipped."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ltx import config
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.main.seg_classification import run_seg_cls_opt
from ltx.tests.support.scripts import FILES, MAIN, NAMES

OPT = MAIN / "seg_classification" / "run_seg_cls_opt.py"


def test_scripts_are_found():
    assert {"train_digits.py", "seg_classification/run_seg_cls.py", "seg_classification/run_seg_cls_opt.py",
            "perturbation_eval/run_perturbation_eval.py"} <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_script_begins_and_ends_alike(path):
    text, depth = path.read_text(), len(path.relative_to(MAIN).parts)
    start = (
        "if not __package__:  # run as a file\n"
        f'    run_path(str(Path(__file__).resolve().parents[{depth}] / "__init__.py"))\n'
    )
    before, after = text.split(start)
    assert "sys.path" not in text and "from ltx" not in before and "from ltx" in after
    assert text.endswith('\nif __name__ == "__main__":\n    main()\n') and "\n@cli.script(" in after


# Runs each script's --help as Python would start it, one after the other, in one process without PYTHONPATH.
RUN_ALL = """
import contextlib, io, json, os, runpy, sys
root, scripts = sys.argv[1], sys.argv[2:]
helps = {}
for script in scripts:
    for name in [n for n in sys.modules if n.split(".")[0] == "ltx"]:
        del sys.modules[name]
    sys.path.insert(0, os.path.dirname(script))
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            assert not stop.code, (script, stop.code)
    assert not any(os.path.realpath(entry).startswith(root) for entry in sys.path if entry), sys.path
    helps[script] = out.getvalue()
    if not script.endswith("train_digits.py"):  # the last: it is one file with its training
        assert "torch" not in sys.modules, (script, "--help waits for PyTorch")
import timm.data, torchvision.datasets
assert not {"config", "datasets", "main", "models"} & set(sys.modules)
assert timm.data.ImageNetInfo().num_classes() == 1000
print(json.dumps(helps))
"""


def test_every_script_runs_from_anywhere_without_pythonpath(tmp_path, start_process):
    """And leaves the names `datasets`, `models`, ... to others."""
    process = start_process("-c", RUN_ALL, config.ROOT, *FILES, cwd=tmp_path)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    helps = json.loads(out.splitlines()[-1])
    assert len(helps) == len(FILES)
    assert all(text.startswith(f"usage: {Path(script).name}") for script, text in helps.items())


def test_published_form_and_missing_weights(tmp_path):
    """`PYTHONPATH=./:$PYTHONPATH nohup python main/...`: no weights, so one line, exit code 2, under 20 s."""
    if shutil.which("nohup") is None:
        pytest.skip("no nohup on this machine")
    command = (
        f"PYTHONPATH=./:$PYTHONPATH nohup {sys.executable} main/seg_classification/run_seg_cls.py "
        "--enable-checkpointing True --explainer-model-name resnet --explainee-model-name resnet "
        "--mask-loss-mul 50 --train-model-by-target-gt-class True --n-epochs 30 --train-n-label-sample 1 "
        f"--plot-path x --images-path digits --default-root-dir {tmp_path}"
    )
    env = {
        "PATH": "/usr/bin:/bin",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        shell=True,
        cwd=config.ROOT,
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60  # no model was made
    lines = [line for line in done.stderr.splitlines() if not line.startswith("nohup:")]
    assert lines[0] == "WARNING: --plot-path has no effect here and is ignored"
    assert len(lines) == 2 and lines[1].startswith("error: weights of 'resnet' are not in timm's cache")
    assert (
        "https://huggingface.co/timm/resnet101.tv_in1k" in lines[1] and "--explainee-checkpoint" in lines[1]
    )
    assert done.stdout == "" and list(tmp_path.glob("*resnet*")) == []


def test_sigkill_and_the_same_command_again(start_run, run_script, digits_weights, tmp_path):
    """Killed after the first of five mask files: the same masks as a run that was not."""
    flags = ["--max-images", 5, "--unit-size", 1, "--n_epochs_to_optimize_stage_b", 6, "--evaluate", "False"]

    def argv(name):
        return [*digits_weights.flags, *flags, "--default-root-dir", tmp_path, "--run-name", name]

    folder = tmp_path / "killed" / "masks"
    process = start_run("ltx", argv("killed")).process
    while not list(folder.glob("*.h5")) and process.is_alive():
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    made = unit_files(tmp_path / "killed")
    assert 1 <= len(made) < 5
    for path in made:
        read_unit(path)  # whole
    for name in ("killed", "whole"):
        assert run_script(run_seg_cls_opt, *argv(name)).code == 0
    for path in unit_files(tmp_path / "whole"):
        whole, killed = read_unit(path), read_unit(tmp_path / "killed" / "masks" / path.name)
        assert whole.attributes["run_hash"] == killed.attributes["run_hash"]
        for variant, masks in whole.token_masks.items():
            np.testing.assert_allclose(killed.token_masks[variant], masks, rtol=0, atol=1e-5)
        for name in ("best_step", "steps", "label", "predicted"):
            np.testing.assert_array_equal(killed.arrays[name], whole.arrays[name])


# Python's `site` imports it in every process, workers included.
START_METHOD = "import multiprocessing\nmultiprocessing.set_start_method({!r})\n"


def test_workers_that_are_spawned(run_process, digits_weights, tmp_path):
    """Processes that read images find the package where they are not forked from the script."""
    (tmp_path / "sitecustomize.py").write_text(START_METHOD.format("spawn"))  # a forkserver's start alike
    flags = ["--max-images", 2, "--num-workers", 1, "--RUN-BASE-MODEL", "--evaluate", "False"]
    place = ["--default-root-dir", tmp_path, "--run-name", "run"]
    argv = [*digits_weights.flags, *flags, *place]
    done = run_process(OPT, *argv, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, timeout=300)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err and len(unit_files(tmp_path / "run")) == 1


def test_digits_from_a_fresh_clone(run_process, tmp_path):
    """LTX with what the repository ships and nothing else, from another folder."""
    done = run_process(
        OPT, "--explainer-model-name", "vit_digits", "--explainee-model-name", "vit_digits",
        "--max-images", 6, "--n_epochs_to_optimize_stage_b", 5, "--num-workers", 0, "--device", "cpu",
        "--default-root-dir", tmp_path / "results", "--run-name", "digits", cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Traceback" not in done.err and Path(done.closing["run"]) == tmp_path / "results" / "digits"
    rows = done.closing["results"]
    assert sorted(rows) == ["best_loss", "best_pos", "last", "pltx"]
    for row in rows.values():  # it has learned to point at the digits
        assert row["POS"] < 35 and row["NEG"] > 65
    assert rows["best_pos"]["POS"] <= min(rows["pltx"]["POS"], rows["last"]["POS"])
    loss = read_unit(unit_files(tmp_path / "results" / "digits")[0]).arrays["loss"]
    assert loss[:, -1].mean() < loss[:, 0].mean() and (loss[:, -1] < loss[:, 0]).mean() >= 0.95
