"""Training in several processes against one: the same losses, weights and files; places in a launch."""

import csv
import socket

import pytest
import torch

from ltx import config
from ltx.config import UserError
from ltx.main.common import launch
from ltx.main.common.launch import World, place
from ltx.main.seg_classification import run_seg_cls
from ltx.main.seg_classification.pretraining import Trainer
from ltx.models.checkpoints import load_weights

SIZES = [
    "--train-images",
    "9",
    "--val-images",
    "5",
    "--batch-size",
    "4",
    "--n-epochs",
    "2",
    "--save-every",
    "1",
]


def flags_of(pair, root):
    flags = [*pair.flags, *SIZES, "--schedule-images", "9", "--lr", "1e-3", "--default-root-dir", str(root)]
    return [flag for flag in flags if flag not in ("--explainer-checkpoint", str(pair.explainer))]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def as_slurm_tasks(start_run, flags):
    """Two processes with ranks as srun gives them; their results, in order."""
    port = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "SLURM_NTASKS": "2"}
    ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    return [run.wait() for run in [start_run("pretraining", flags, env=port | rank) for rank in ranks]]


def same_run(folder, other):
    """Whether two runs' weights and epochs are equal to float tolerance.

    The gradient of a bias of attention's keys is zero but for rounding, and AdamW makes whole steps of that:
    it may differ, and changes no output.
    """
    ours, theirs = (load_weights(one / "last.safetensors") for one in (folder, other))
    for name, value in ours.items():
        parts = zip(value.chunk(3), theirs[name].chunk(3), strict=True)
        for which, part in enumerate(parts):
            if not (name.endswith("qkv.bias") and which == 1):
                torch.testing.assert_close(*part, rtol=0, atol=1e-5, msg=name)
    rows, others = ((one / "epochs.csv").read_text().splitlines() for one in (folder, other))
    rows, others = (list(csv.DictReader(lines)) for lines in (rows, others))
    assert len(rows) == len(others) == 2
    for row, expected in zip(rows, others, strict=True):
        for name in row.keys() - {"seconds"}:
            assert float(row[name]) == pytest.approx(float(expected[name]), abs=2e-5), name


def folder_of(root):
    (path,) = root.glob("*/*/epochs.csv")
    return path.parent


def test_two_processes_train_as_one_does(digits_weights, run_script, run_process, tmp_path, no_drawing):
    """By torchrun, from another folder; a last batch smaller than the launch, each share in two parts."""
    alone = run_script(run_seg_cls, *flags_of(digits_weights, tmp_path / "alone"))
    assert alone.code == 0, alone.err
    torchrun = ["torch.distributed.run", "--nproc-per-node", 2, "--master-addr", "127.0.0.1"]
    flags = [*flags_of(digits_weights, tmp_path / "two"), "--accumulate", "2"]
    script = config.ROOT / "main" / "seg_classification" / "run_seg_cls.py"
    done = run_process("-m", *torchrun, "--master-port", free_port(), script, *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.count('"results"') == 1 and done.closing["run"]  # the first alone speaks
    same_run(folder_of(tmp_path / "two"), folder_of(tmp_path / "alone"))


def test_two_slurm_tasks_go_on_where_one_process_was_stopped(
    digits_weights, run_script, start_run, tmp_path, no_drawing, monkeypatch
):
    alone = run_script(run_seg_cls, *flags_of(digits_weights, tmp_path / "alone"))
    assert alone.code == 0, alone.err
    seen, root = [], tmp_path / "stopped"
    train_step = Trainer._train_step

    def stop(trainer, *arguments):
        seen.append(1)
        if len(seen) == 5:  # in the second epoch
            raise KeyboardInterrupt
        return train_step(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stop)
        assert run_script(run_seg_cls, *flags_of(digits_weights, root)).code == 130
    for result in as_slurm_tasks(start_run, flags_of(digits_weights, root)):
        assert result.code == 0, result.err
    same_run(folder_of(root), folder_of(tmp_path / "alone"))


def test_accumulation_changes_nothing(tiny_pair, run_script, tmp_path, no_drawing):
    for name, parts in (("whole", "1"), ("parts", "3")):
        done = run_script(run_seg_cls, *flags_of(tiny_pair, tmp_path / name), "--accumulate", parts)
        assert done.code == 0, done.err
    same_run(folder_of(tmp_path / "parts"), folder_of(tmp_path / "whole"))


# Places.


def set_all(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_alone_without_a_launcher():
    assert place() == (0, 1, 0)
    assert launch.start(torch.device("cpu")) == World()


def test_torchrun_comes_before_slurm(monkeypatch):
    set_all(monkeypatch, SLURM_PROCID="7", SLURM_NTASKS="9", SLURM_LOCALID="1")
    assert place() == (7, 9, 1)
    set_all(monkeypatch, RANK="3", WORLD_SIZE="4", LOCAL_RANK="2")
    assert place() == (3, 4, 2)


def test_a_batch_script_of_many_tasks_is_one_process_within_its_step(monkeypatch):
    set_all(monkeypatch, SLURM_PROCID="0", SLURM_NTASKS="8", SLURM_STEP_NUM_TASKS="1")
    assert place() == (0, 1, 0)


def test_an_environment_that_is_no_number(monkeypatch):
    set_all(monkeypatch, RANK="first", WORLD_SIZE="2")
    with pytest.raises(UserError, match="RANK"):
        place()


def test_several_machines_need_an_address(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    set_all(monkeypatch, SLURM_PROCID="1", SLURM_NTASKS="2", SLURM_NNODES="2")
    with pytest.raises(UserError, match="MASTER_ADDR"):
        launch.start(torch.device("cpu"))
