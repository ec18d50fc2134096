"""Runs on CUDA: the mask files, a kill and what follows it, bf16, --compile, two devices."""

import csv
import shutil

import numpy as np
import pytest
import torch

from ltx import config
from ltx.main.perturbation_eval import run_perturbation_eval
from ltx.main.runs.mask_files import read_unit
from ltx.main.runs.mask_job import MaskJob
from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt
from ltx.tests.main.common.test_launch import flags_of as pretraining_flags
from ltx.tests.main.common.test_launch import folder_of, free_port

N_IMAGES = 6


def on_cuda(flags, device="cuda"):
    where = flags.index("--device") + 1
    return [*flags[:where], device, *flags[where + 1 :]]


def flags_of(weights, folder, *more, device="cuda"):
    place = ["--default-root-dir", folder.parent, "--run-name", folder.name]
    sizes = ["--max-images", N_IMAGES, "--unit-size", 2, "--batch-size", 2]
    return [*on_cuda(weights.flags, device), *place, *sizes, "--n_epochs_to_optimize_stage_b", 4, *more]


def masks_of(folder):
    """All token masks of a run, by variant."""
    found = [read_unit(path).token_masks for path in sorted((folder / "masks").glob("*.h5"))]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def make(run_script, weights, folder, *more, device="cuda"):
    done = run_script(run_seg_cls_opt, *flags_of(weights, folder, *more, device=device))
    assert done.code == 0, done.err
    return masks_of(folder)


def test_a_run_makes_the_masks_of_the_cpu(digits_weights, run_script, tmp_path):
    ours = make(run_script, digits_weights, tmp_path / "cuda")
    theirs = make(run_script, digits_weights, tmp_path / "cpu", device="cpu")
    for name in ("pltx", "last", "best_loss"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-4, err_msg=name)


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(digits_weights, run_script, tmp_path, monkeypatch):
    whole = make(run_script, digits_weights, tmp_path / "whole", "--evaluate", "False")
    made, write = [], MaskJob._make

    def stop(job, *arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(1)
        return write(job, *arguments)

    folder = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(MaskJob, "_make", stop)
        assert run_script(run_seg_cls_opt, *flags_of(digits_weights, folder)).code == 130
    assert 0 < len(list((folder / "masks").glob("*.h5"))) < N_IMAGES // 2
    found = make(run_script, digits_weights, folder, "--evaluate", "False")
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_bf16(digits_weights, run_script, tmp_path):
    exact = make(run_script, digits_weights, tmp_path / "float32", "--evaluate", "False")
    found = make(run_script, digits_weights, tmp_path / "bf16", "--precision", "bf16")
    for name in ("pltx", "last"):
        assert np.abs(found[name] - exact[name]).mean() < 0.02


def test_compile(digits_weights, run_script, tmp_path):
    pytest.importorskip("triton")
    exact = make(run_script, digits_weights, tmp_path / "plain")
    found = make(run_script, digits_weights, tmp_path / "compiled", "--compile", "True")
    np.testing.assert_allclose(found["last"], exact["last"], rtol=0, atol=1e-3)
    shutil.rmtree(tmp_path / "compiled" / "results")
    done = run_script(
        run_perturbation_eval,
        tmp_path / "compiled",
        "--device",
        "cuda",
        "--compile",
        "True",
        "--num-workers",
        0,
    )
    assert done.code == 0, done.err


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_processes_train_as_one_does(digits_weights, run_script, run_process, tmp_path):
    """With NCCL; losses are sums in another order."""
    alone, two = (on_cuda(pretraining_flags(digits_weights, tmp_path / name)) for name in ("alone", "two"))
    assert run_script(run_seg_cls, *alone).code == 0
    script = config.ROOT / "main" / "seg_classification" / "run_seg_cls.py"
    launch = ["torch.distributed.run", "--nproc-per-node", 2, "--master-addr", "127.0.0.1", "--master-port"]
    done = run_process("-m", *launch, free_port(), script, *two, timeout=300)
    assert done.code == 0, done.err
    files = [folder_of(tmp_path / name) / "epochs.csv" for name in ("alone", "two")]
    rows = [list(csv.DictReader(file.read_text().splitlines())) for file in files]
    for row, expected in zip(*rows, strict=True):
        assert float(row["val_loss"]) == pytest.approx(float(expected["val_loss"]), abs=1e-3)
