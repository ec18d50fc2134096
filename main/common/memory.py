"""How many images fit side by side: bytes of one, free memory, backing off where the estimate was wrong."""

import gc
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ltx.config import UserError
from ltx.main.common.devices import default_batch
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.losses import Objective

log = logging.getLogger(__name__)
Result = TypeVar("Result")

AUTO = "auto"
# Share of the free memory that an estimate may fill; and the most images that `auto` takes.
_USABLE = 0.8
_MOST = {"cpu": 32, "cuda": 128}
# Files of a control group by controller: version 2 has one for everything.
_GROUP_FILES = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


@dataclass(frozen=True)
class SlotMemory:
    """Bytes that finetuning takes.

    Attributes:
        weights: trainable weights of one image's own explainer; its gradient takes as much, AdamW's two
            moments twice as much.
        activations: what one image's forward pass keeps for the backward pass.
        shared: the scoring's batch, whatever the number of images side by side.
    """

    weights: int
    activations: int
    shared: int

    @property
    def slot(self) -> int:
        """Bytes of one image."""
        return 4 * self.weights + self.activations

    def fits(self, free: int) -> int:
        """Images side by side that an amount of free memory has room for, with a margin."""
        return max(0, int((_USABLE * free - self.shared) // self.slot))

    def __str__(self) -> str:
        weights, moments = _text(self.weights), _text(2 * self.weights)
        return (
            f"{_text(self.slot)} for each image side by side (weights {weights}, gradient {weights}, two "
            f"moments {moments}, activations {_text(self.activations)}) and {_text(self.shared)} for scoring"
        )


def measure_slot(explainer: Explainer, explainee: Explainee, objective: Objective) -> SlotMemory:
    """Memory of one image, by one forward pass of a blank one.

    Args:
        explainer: on its device.
        explainee: on the same device.
        objective: the loss.
    """
    device = explainee.mean.device
    fixed = {
        value.untyped_storage().data_ptr()
        for module in (explainer, explainee)
        for value in (*module.parameters(), *module.buffers())
    }
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(value) -> None:
        """Keeps the memory, whose address would else be taken again and not counted, but not the tensor.

        An operation that holds its own output would never be freed.
        """
        if isinstance(value, torch.Tensor) and value.layout == torch.strided:
            storage = value.untyped_storage()
            if storage.data_ptr() not in fixed:
                kept[storage.data_ptr()] = storage

    image = torch.zeros(1, 3, *explainee.input_size, device=device)
    target = torch.zeros(1, dtype=torch.long, device=device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        masks = (
            explainer(image, target) if getattr(explainer, "class_conditional", False) else explainer(image)
        )
        loss = objective(explainee, image, masks, target)["loss"]
    weights = sum(value.numel() * value.element_size() for value in explainer.trainable().values())
    del loss
    # A pass without gradients holds a few of the largest intermediate results at once.
    sizes = [storage.nbytes() for storage in kept.values()]
    shared = 4 * max(sizes, default=0) * default_batch(device)
    return SlotMemory(weights, sum(sizes), shared)


def free_memory(device: torch.device) -> int:
    """Bytes that may still be taken on a device, within this process's control group on Linux."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(_available_ram(), _group_limit())


def _available_ram(path: Path = Path("/proc/meminfo")) -> int:
    try:
        lines = path.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: half of what is installed
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _group_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """What the control group (a container, a Slurm job) leaves; a huge number where it sets no limit."""
    left = [2**62]
    try:
        groups = [line.split(":", 2)[1:] for line in own.read_text().splitlines()]
    except OSError:
        return left[0]
    for kind, name in groups:
        if kind not in _GROUP_FILES:
            continue
        names = _GROUP_FILES[kind]
        top = root / kind
        folder = top / name.strip("/")
        while True:  # a limit may stand at any level
            try:
                limit, used = ((folder / file).read_text().strip() for file in names)
                if limit != "max":
                    left.append(max(0, int(limit) - int(used) + _cache(folder)))
            except (OSError, ValueError):
                pass
            if folder == top or top not in folder.parents:
                break
            folder = folder.parent
    return min(left)


def _cache(folder: Path) -> int:
    """File cache of a control group, which counts as used and can be had back."""
    try:
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(fields.get("inactive_file", fields.get("total_inactive_file", 0)))


class SideBySide:
    """How many images are finetuned side by side, and what happens where that is too many.

    Args:
        asked: what `--batch-size` says, a number or `auto`.
        memory: see `SlotMemory`.
        device: where to compute.
        free: bytes that are free (default: measured).
        quiet: do not print what is taken.

    Raises:
        UserError: a given number that does not fit; the message says which one would.
    """

    def __init__(
        self,
        asked: int | str,
        memory: SlotMemory,
        device: torch.device | str,
        free: int | None = None,
        quiet: bool = False,
    ):
        self.automatic, device = asked == AUTO, torch.device(device)
        free = free_memory(device) if free is None else free
        self.most = memory.fits(free)
        if self.automatic:
            self.n = max(1, min(self.most, _MOST.get(device.type, _MOST["cpu"])))
        else:
            self.n = int(asked)
            needed = self.n * memory.slot + memory.shared
            if needed > free and self.n > 1:
                raise UserError(
                    f"--batch-size {self.n} needs about {_text(needed)} and {_text(free)} are free; "
                    f"--batch-size {max(1, self.most)} would fit (or auto)"
                )
        if not quiet:
            print(f"memory: {memory}; {_text(free)} free, room for {self.most}; taking {self.n} at once")

    def run(self, work: Callable[[int], Result]) -> Result:
        """`work(n)`; with `auto`, with half as many again and again where memory runs out.

        Raises:
            UserError: memory ran out with a given number, or with one image.
        """
        while True:
            try:
                return work(self.n)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                half = self.n // 2
                if not self.automatic or half < 1:
                    hint = f"--batch-size {max(1, min(half, self.most))} would fit, or auto" if half else (
                        "not even one image fits; choose a smaller explainer or another --device"
                    )  # fmt: skip
                    raise UserError(f"out of memory with {self.n} images side by side; {hint}") from None
            log.warning("out of memory with %d images side by side; going on with %d", self.n, half)
            self.n = half
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_out_of_memory(error: Any) -> bool:
    """Whether an exception says that memory has run out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "not enough memory" in str(error) or "out of memory" in str(error)


def _text(n_bytes: int) -> str:
    """Bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"
