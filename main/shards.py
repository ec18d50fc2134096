"""Which share of a run this process does, and where several processes learn that from."""

import os

from config import UserError


def shard_of(items: list, num_shards: int | None, shard_index: int | None) -> list:
    """This process's share of a run's work units: every `num_shards`-th one.

    Without flags, `WORLD_SIZE` / `RANK` (torchrun) are read, else `SLURM_ARRAY_TASK_COUNT` and
    `SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN`, else everything is this process's.

    Raises:
        UserError: an index outside the shards, or one flag without the other.
    """
    if (num_shards is None) != (shard_index is None):
        raise UserError("--num-shards and --shard-index belong together: pass both or neither")
    if num_shards is None:
        num_shards, shard_index = _from_environment()
    if not 0 <= shard_index < num_shards:
        raise UserError(
            f"--shard-index {shard_index} is outside 0 ... {num_shards - 1} (--num-shards {num_shards})"
        )
    return items[shard_index::num_shards]


def _from_environment() -> tuple[int, int]:
    names = (
        ("WORLD_SIZE", "RANK", None),
        ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN"),
    )
    for count, index, first in names:
        if os.environ.get(count) and os.environ.get(index):
            return int(os.environ[count]), int(os.environ[index]) - int(os.environ.get(first or "", 0) or 0)
    return 1, 0
