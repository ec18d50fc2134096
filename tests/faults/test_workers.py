"""Processes that read images: one that dies, and machines whose shared memory is missing or small."""

import ctypes
import errno
import functools
import multiprocessing
import os
import shutil
import signal
import subprocess

import pytest
import torch
from torch.utils.data import get_worker_info

from ltx.datasets import workers
from ltx.datasets.base import ImageSet
from ltx.datasets.build import batches
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.seg_classification import run_seg_cls_opt
from ltx.tests.faults.conftest import folder_of
from ltx.tests.faults.folders import contents, differences

NEW_MOUNTS = 0x20000  # CLONE_NEWNS of <sched.h>
WORKERS = ("--num-workers", "1")


class Plain(ImageSet):
    """Six images of one colour each."""

    def __init__(self):
        super().__init__((16, 16))
        self.names, self.labels = list("abcdef"), [0] * 6

    def __getitem__(self, index):
        return {"image": torch.full((3, 16, 16), index / 10), "label": 0, "index": index}

    def describe(self):
        return {"kind": "plain"}


@pytest.fixture(autouse=True)
def _warn_again(monkeypatch):
    monkeypatch.setattr(workers, "_warned", set())


def test_readers_without_shared_memory(monkeypatch, caplog):
    def no_lock(_):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(type(multiprocessing.get_context()), "Lock", no_lock)
    for _ in range(2):
        assert [batch["index"].tolist() for batch in batches(Plain(), range(6), 4, 2)] == [
            [0, 1, 2, 3],
            [4, 5],
        ]
    (record,) = caplog.records  # once
    assert "no shared memory for processes that read images ([Errno 2]" in record.getMessage()


def die_in_the_third_file() -> None:
    read = DigitsOnPhotos.__getitem__

    def die(images, index):
        if index == 4 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(images, index)

    DigitsOnPhotos.__getitem__ = die


@pytest.fixture
def whole(argv_of, start_run, tmp_path):
    """What an undisturbed LTX run makes."""
    assert start_run("ltx", argv_of("ltx", tmp_path / "whole")).wait().code == 0
    return contents(folder_of("ltx", tmp_path / "whole"))


def test_a_reader_of_a_run_that_dies(argv_of, start_run, whole, tmp_path):
    argv, folder = argv_of("ltx", tmp_path, *WORKERS), folder_of("ltx", tmp_path)
    stopped = start_run("ltx", argv, die_in_the_third_file).wait()
    assert "a process that reads images died" in stopped.error and "--num-workers 0" in stopped.error
    assert sorted(path.name for path in (folder / "masks").iterdir()) == [
        "000000-000001.h5",
        "000002-000003.h5",
    ]
    assert start_run("ltx", argv).wait().code == 0
    assert differences(folder, whole) == []


def shared_memory(options: str) -> None:
    """Gives this process alone another /dev/shm."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "unshare")
    for command in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", options, "tmpfs", "/dev/shm"]):
        subprocess.run(["mount", *command], check=True)


@pytest.mark.parametrize(
    ("options", "line"),
    [("ro", "no shared memory for processes that read images"), ("size=64k", "/dev/shm is too small for")],
)
def test_a_run_without_shared_memory(options, line, argv_of, start_run, whole, tmp_path):
    """It says so once, and makes the same masks."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("this user may not change what is mounted")
    patch = functools.partial(shared_memory, options)
    done = start_run("ltx", argv_of("ltx", tmp_path, *WORKERS), patch).wait()
    assert done.code == 0, done.err
    assert done.err.count(line) == 1 and "Traceback" not in done.err
    assert differences(folder_of("ltx", tmp_path), whole) == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/disk/a"),
         "error: /disk/a: No space left on device; finished files are intact, run the same command again to "
         "resume"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
         "error: a process that reads images died (DataLoader worker (pid 7) is killed by signal: Killed); "
         "the machine may be out of memory or of /dev/shm; the same command resumes from what was written "
         "(--num-workers 0 needs no such processes)"),
    ],
)  # fmt: skip
def test_wherever_it_is_raised(error, line, tiny_pair, run_script, monkeypatch, tmp_path):
    def fail(*_):
        raise error

    monkeypatch.setattr("ltx.main.seg_classification.ltx_run.run_ltx", fail)
    assert run_script(run_seg_cls_opt, *tiny_pair.flags, "--default-root-dir", tmp_path).error == line


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not fit"), FileNotFoundError(2, "no such file", "a")]
)
def test_our_own_mistakes_keep_their_traceback(error, tiny_pair, run_script, monkeypatch, tmp_path):
    def fail(*_):
        raise error

    monkeypatch.setattr("ltx.main.seg_classification.ltx_run.run_ltx", fail)
    with pytest.raises(type(error)):
        run_script(run_seg_cls_opt, *tiny_pair.flags, "--default-root-dir", tmp_path)
