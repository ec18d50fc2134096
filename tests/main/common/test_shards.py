"""Shares of a run, from flags or from the environment of a cluster."""

import pytest

from ltx.config import UserError
from ltx.main.common.launch import shard_of

ITEMS = list(range(11))


@pytest.mark.parametrize("n", [1, 2, 3, 11, 20])
def test_shares_cover_everything_once(n):
    shares = [shard_of(ITEMS, n, index) for index in range(n)]
    assert sorted(item for share in shares for item in share) == ITEMS
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_by_default():
    assert shard_of(ITEMS, None, None) == ITEMS


def test_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares += shard_of(ITEMS, None, None)
    assert sorted(shares) == ITEMS


@pytest.mark.parametrize("first", [0, 1, 5])
def test_slurm_arrays_may_start_anywhere(monkeypatch, first):
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", str(first))
    shares = []
    for task in range(first, first + 4):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        shares += shard_of(ITEMS, None, None)
    assert sorted(shares) == ITEMS


def test_torchrun_inside_slurm_comes_first_and_flags_before_both(monkeypatch):
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "SLURM_ARRAY_TASK_COUNT": "4",
        "SLURM_ARRAY_TASK_ID": "0",
    }.items():
        monkeypatch.setenv(name, value)
    assert shard_of(ITEMS, None, None) == ITEMS[1::2]
    assert shard_of(ITEMS, 11, 3) == [3]


@pytest.mark.parametrize("n, index", [(2, 2), (2, -1), (0, 0)])
def test_index_outside_the_shards(n, index):
    with pytest.raises(UserError, match=f"--shard-index {index} is outside"):
        shard_of(ITEMS, n, index)


@pytest.mark.parametrize("n, index", [(2, None), (None, 0)])
def test_half_a_pair_of_flags(n, index):
    with pytest.raises(UserError, match="belong together"):
        shard_of(ITEMS, n, index)
