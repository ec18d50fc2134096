"""Several processes that train one explainer: plain python, torchrun, or Slurm's srun, in one file.

Without any of them there is one process and nothing here does anything. Only training forms a group;
finetuning and evaluation are shards that know nothing of each other, see `main.shards`.
"""

import atexit
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import distributed, nn

from ltx.config import UserError


@dataclass(frozen=True)
class World:
    """The processes that train together, and which of them this is.

    Attributes:
        rank: from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over the processes."""
        if self.size == 1:
            return module
        device = next(module.parameters()).device
        return nn.parallel.DistributedDataParallel(
            module,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=_has_unused(module, device),
        )

    def add_up(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums by name over all processes; a process that has nothing passes nothing."""
        if self.size == 1:
            return sums
        everyone: list = [None] * self.size
        distributed.all_gather_object(everyone, sums)
        total: dict[str, float] = {}
        for one in everyone:
            for name, value in one.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def gather(self, value) -> list:
        """What each process has, in every process."""
        if self.size == 1:
            return [value]
        found = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def first(self, work: Callable):
        """Result of `work`, which the main process does before the others; where it fails, all end."""
        if self.size == 1:
            return work()
        if not self.is_main:
            if not self._went_well(None):
                sys.exit(2)
            return work()
        try:
            result = work()
        except BaseException:
            self._went_well(False)
            raise
        self._went_well(True)
        return result

    @staticmethod
    def _went_well(said: bool | None) -> bool:
        message = [said]
        distributed.broadcast_object_list(message, src=0)
        return message[0]


def _has_unused(module: nn.Module, device: torch.device) -> bool:
    """Whether some trainable weights have no part in an explainer's masks."""
    weights = [value for value in module.parameters() if value.requires_grad]
    masks = module(torch.zeros(1, 3, *module.input_size, device=device))
    return any(one is None for one in torch.autograd.grad(masks.sum(), weights, allow_unused=True))


def place() -> tuple[int, int, int]:
    """Rank, size and rank on this machine, from torchrun's or srun's environment; 0, 1, 0 without."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in os.environ:
        # Within srun: a batch script alone has the job's number of tasks, and is one process.
        size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in os.environ else "SLURM_NTASKS"
        names = ("SLURM_PROCID", size, "SLURM_LOCALID")
    else:
        return 0, 1, 0
    try:
        rank, size, local = (
            int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True)
        )
    except ValueError as error:
        raise UserError(f"{', '.join(names)} of the environment must be whole numbers: {error}") from None
    return rank, size, local


def start(device: torch.device) -> World:
    """Joins the processes of this launch; all but the first fall silent on standard output.

    Args:
        device: where this process computes; NCCL on CUDA, else gloo.

    Raises:
        UserError: srun on several machines without MASTER_ADDR.
    """
    rank, size, _ = place()
    if size == 1:
        return World()
    if "MASTER_ADDR" not in os.environ:
        if int(os.environ.get("SLURM_NNODES", 1)) > 1:
            raise UserError(
                "several machines need MASTER_ADDR (and MASTER_PORT): export MASTER_ADDR=$(scontrol show "
                "hostnames $SLURM_JOB_NODELIST | head -n 1)"
            )
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ.get("SLURM_JOB_ID", 9500)) % 20000))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=size)
    atexit.register(distributed.destroy_process_group)
    if rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    return World(rank, size)


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
