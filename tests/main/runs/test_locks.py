"""Claims: two processes never hold the same part of a folder, and none outlives its process."""

import errno
import multiprocessing
import os
import signal
import time

import pytest

from ltx.config import UserError
from ltx.main.runs import locks
from ltx.main.runs.locks import LOCK_FILE, claimed

FORK = multiprocessing.get_context("fork")


def hold(folder, parts, pipe, with_child=False):
    with claimed(folder, parts, "the same work"):
        child = None
        if with_child:
            child = FORK.Process(target=time.sleep, args=(60,))
            child.start()
        pipe.send(child.pid if child else None)
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """`holder(parts)`: another process that holds parts of the folder; returns it and what it said."""
    started = []

    def start(parts, **arguments):
        pipe, other = FORK.Pipe()
        process = FORK.Process(target=hold, args=(tmp_path, parts, other), kwargs=arguments)
        process.start()
        started.append(process)
        assert pipe.poll(60)
        return process, pipe.recv()

    yield start
    for process in started:
        process.kill()
        process.join()


def test_another_process_is_named_and_its_parts_alone_are_taken(holder, tmp_path):
    process, _ = holder([0, 3])
    for parts in ([3], [2, 3], [0]):
        with (
            pytest.raises(UserError, match=r"another process is at work on the masks in .*; wait"),
            claimed(tmp_path, parts, "the masks"),
        ):
            pytest.fail("it was given twice")
    with claimed(tmp_path, [1, 2, 4], "the masks"):
        pass
    process.kill()
    process.join()
    with claimed(tmp_path, [0, 3], "the masks"):
        pass


def test_a_claim_ends_with_its_process_though_its_children_live(holder, tmp_path):
    """As reading processes do for some seconds after a kill."""
    process, child = holder([0], with_child=True)
    process.kill()
    process.join()
    try:
        with claimed(tmp_path, [0], "the masks"):
            os.kill(child, 0)  # it is there
    finally:
        os.kill(child, signal.SIGKILL)


def test_given_back_at_the_end_and_after_an_error(holder, tmp_path):
    with pytest.raises(ZeroDivisionError), claimed(tmp_path, [0], "the masks"):
        raise ZeroDivisionError
    with claimed(tmp_path, [0], "the masks"):
        pass
    holder([0])  # would fail


def test_nothing_to_do_needs_no_folder(tmp_path):
    with claimed(tmp_path / "read-only", [], "the masks"):
        pass
    assert not (tmp_path / "read-only").exists()


def test_a_disk_without_locks(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", refuse)
    with claimed(tmp_path, [0, 1], "the masks"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: this disk knows no locks (No locks available); see to it that no other process does "
        "the same work"
    ]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"cannot write .*{LOCK_FILE}"), claimed(tmp_path / "file", [0], "x"):
        pass
