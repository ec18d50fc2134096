"""Several processes of one run, started by torchrun or Slurm; without a launcher there is one.

Training forms a process group. Finetuning and evaluation are independent shards.
"""

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import distributed, nn

from ltx.config import UserError


@dataclass(frozen=True)
class World:
    """Processes that train together.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the process that writes files and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with its gradients averaged over the processes."""
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
        """Return the sums by name over all processes; a process may pass none."""
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
        """Return the values of all processes, in every process."""
        if self.size == 1:
            return [value]
        found = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def first(self, work: Callable):
        """Run `work`, on the main process before the others; if it fails, all end."""
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
    """Return whether some trainable weights do not affect an explainer's masks."""
    weights = [value for value in module.parameters() if value.requires_grad]
    masks = module(torch.zeros(1, 3, *module.input_size, device=device))
    return any(one is None for one in torch.autograd.grad(masks.sum(), weights, allow_unused=True))


# Variables of each launcher: rank, size, rank on this machine, lowest rank.
_LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", None),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", None),
    "array": ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", None, "SLURM_ARRAY_TASK_MIN"),
}


def place(launchers: Sequence[str] = ("torchrun", "srun")) -> tuple[int, int, int]:
    """Return rank, size and rank on this machine from the environment of the first launcher that set it.

    Without any: 0, 1, 0. A Slurm batch script alone has the job's number of tasks and is one process; within
    srun the step's number counts.

    Raises:
        UserError: a variable is not a whole number.
    """
    sizes = os.environ.get("SLURM_NTASKS")
    found = {"SLURM_STEP_NUM_TASKS": sizes} if sizes else {}
    found |= {name: value for name, value in os.environ.items() if value}
    for launcher in launchers:
        rank, size, local, lowest = _LAUNCHERS[launcher]
        if rank in found and size in found:
            names = (rank, size, local, lowest)
            try:
                values = [int(found.get(name, 0)) for name in names]
            except ValueError as error:
                named = ", ".join(name for name in names if name)
                raise UserError(f"environment variables {named} must be whole numbers: {error}") from None
            return values[0] - values[3], values[1], values[2]
    return 0, 1, 0


def start(device: torch.device) -> World:
    """Join the processes of this launch; only the first prints to standard output.

    Args:
        device: of this process; NCCL on CUDA, else gloo.

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
    """Return this process's share of a run's work units: every `num_shards`-th one.

    Without flags, the environment of torchrun or of a Slurm array is read; without either, the share is all.

    Raises:
        UserError: an index outside the shards, or one flag without the other.
    """
    if (num_shards is None) != (shard_index is None):
        raise UserError("--num-shards and --shard-index belong together: pass both or neither")
    if num_shards is None:
        shard_index, num_shards, _ = place(("torchrun", "array"))
    if not 0 <= shard_index < num_shards:
        raise UserError(
            f"--shard-index {shard_index} is outside 0 ... {num_shards - 1} (--num-shards {num_shards})"
        )
    return items[shard_index::num_shards]
