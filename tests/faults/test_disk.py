"""Full and read-only disks: one line, what was written is whole, and the same command resumes afterwards."""

import errno
import functools
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.main.runs import evaluation, tables
from ltx.main.runs.files import write_json
from ltx.main.runs.mask_files import MaskUnit, read_unit, write_unit
from ltx.models.checkpoints import save_safetensors, save_state
from ltx.models.files import remove_leftovers, replace_file
from ltx.tests.faults.conftest import folder_of
from ltx.tests.faults.folders import contents, differences, files, is_temporary

STAGES = ("pretraining", "ltx", "baselines")
RANDOM = np.random.default_rng(0).random((8, 40, 40), dtype=np.float32)  # does not compress
WRITERS = {
    "masks": lambda path: write_unit(path, MaskUnit(np.arange(8), np.arange(8), {}, {"random": RANDOM})),
    "scores": lambda path: evaluation.write_part(path, {"values": RANDOM}),
    "state": lambda path: save_state(path, {"weights": torch.from_numpy(RANDOM)}),
    "weights": lambda path: save_safetensors(
        path, {"weights": torch.from_numpy(RANDOM)}, {}
    ),
    "rows": lambda path: tables.write_per_image(path, ["a"], [[float(x)] for x in RANDOM.flat]),
    "json": lambda path: write_json(path, {"values": RANDOM.tolist()}),
}  # fmt: skip


@pytest.fixture
def limited():
    """`limited(n)`: a context in which no file of this process grows beyond n bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("writer", WRITERS)
def test_every_kind_of_file_on_a_full_disk(writer, limited, tmp_path):
    """In this process, which HDF5 used to end at its exit."""
    path = tmp_path / "folder" / {"state": "a.pt", "weights": "a.safetensors"}.get(writer, "a")
    WRITERS[writer](path)
    before = path.read_bytes()
    for size in (0, 512, 4096, len(before) - 1):
        limited(size)
        with pytest.raises(UserError) as caught:
            WRITERS[writer](path)
        assert str(caught.value).startswith(f"cannot write {path}: File too large; what was written before")
        assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    limited(len(before) + 100_000)
    WRITERS[writer](path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_error_that_comes_with_the_flush(number, tmp_path, monkeypatch):
    """As network disks and quotas give it."""

    def fail(_):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a"
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=f"cannot write .*: {os.strerror(number)}; "):
        replace_file(path, lambda temporary: Path(temporary).write_text("after"))
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_our_own_mistakes_are_no_disk_errors(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_processes(tmp_path):
    for name in (".a.pt.x1.tmp", ".a.pt.x2.tmp", ".a.pt2.x.tmp", "a.pt", ".b.pt.x.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.pt2.x.tmp", ".b.pt.x.tmp", "a.pt"]


def limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def is_whole(folder: Path) -> bool:
    """Every file of a run folder can be read, and none is half written."""
    contents(folder)
    return not any(is_temporary(path) for path in files(folder))


@pytest.mark.parametrize("script", STAGES)
def test_a_quota_in_the_midst_of_a_run(script, argv_of, start_run, tmp_path):
    """The largest file does not fit any more."""
    whole, cut = folder_of(script, tmp_path / "whole"), folder_of(script, tmp_path / "cut")
    assert start_run(script, argv_of(script, tmp_path / "whole")).wait().code == 0
    largest = max(path.stat().st_size for path in files(whole))
    stopped = start_run(
        script, argv_of(script, tmp_path / "cut"), functools.partial(limit_files, largest - 1)
    ).wait()
    assert "cannot write" in stopped.error and "File too large" in stopped.error
    assert (cut / "run.json").is_file() and is_whole(cut)
    assert start_run(script, argv_of(script, tmp_path / "cut")).wait().code == 0
    assert differences(cut, contents(whole)) == []


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(options, again=False)`: mounts a disk in memory, or changes it; returns its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options, again=False):
        command = ["mount", "-t", "tmpfs", "-o", ("remount," if again else "") + options, "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may not mount a disk")
        return folder

    yield mount
    subprocess.run(["umount", "-l", folder], capture_output=True)


@pytest.mark.parametrize("script", STAGES)
def test_a_disk_that_is_full(script, argv_of, start_run, small_disk, tmp_path):
    """Room for half of the run; the scores too come to lie there."""
    whole = folder_of(script, tmp_path / "whole")
    assert start_run(script, argv_of(script, tmp_path / "whole")).wait().code == 0
    disk = small_disk("size=100m")
    room = sum(-(-path.stat().st_size // 4096) * 4 for path in files(whole)) // 2
    small_disk(f"size={room}k", again=True)
    stopped = start_run(script, argv_of(script, disk)).wait()
    assert "cannot write" in stopped.error and "No space left on device" in stopped.error
    assert is_whole(folder_of(script, disk))
    small_disk("size=100m", again=True)
    assert start_run(script, argv_of(script, disk)).wait().code == 0
    assert differences(folder_of(script, disk), contents(whole)) == []


def test_a_read_only_disk(argv_of, start_run, small_disk, tmp_path):
    disk = small_disk("size=100m")
    small_disk("ro", again=True)
    argv = argv_of("ltx", disk)
    assert "Read-only file system" in start_run("ltx", argv).wait().error
    small_disk("rw", again=True)
    assert start_run("ltx", argv).wait().code == 0
    expected = contents(folder_of("ltx", disk))
    (disk / "run" / "masks" / "000002-000003.h5").unlink()
    small_disk("ro", again=True)
    assert "Read-only file system" in start_run("ltx", argv).wait().error
    small_disk("rw", again=True)
    assert start_run("ltx", argv).wait().code == 0
    assert differences(disk / "run", expected) == []
    assert read_unit(disk / "run" / "masks" / "000002-000003.h5").variants
