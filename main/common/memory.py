"""Images side by side: the bytes of one, free memory, and half as many where memory runs out."""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from ltx.config import UserError
from ltx.main.common import control_groups
from ltx.main.common.devices import default_batch
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.kinks import round_pair
from ltx.models.losses import Objective

log = logging.getLogger(__name__)
Result = TypeVar("Result")

AUTO = "auto"
# Share of the free memory that an estimate may fill; and the most images that `auto` takes.
_USABLE = 0.8
_MOST = {"cpu": 32, "cuda": 128}
_NO_LIMIT = 2**62
# PyTorch's words on Windows, on Linux, of its accelerators, and of C++.
_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "bad_alloc")
# Limit and use of a control group by controller: version 2 has one for everything.
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
        shared: the scoring's batch, whatever the number of images side by side; 0 where nothing is scored.
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
        scoring = f" and {_text(self.shared)} for scoring" if self.shared else ""
        return (
            f"{_text(self.slot)} for each image side by side (weights {weights}, gradient {weights}, two "
            f"moments {moments}, activations {_text(self.activations)}){scoring}"
        )


def measure_slot(
    explainer: Explainer,
    explainee: Explainee,
    objective: Objective,
    scored: bool = True,
    kink_width: float = 0.0,
) -> SlotMemory:
    """Memory of one image, by one forward pass of a blank one.

    Args:
        explainer: on its device.
        explainee: on the same device.
        objective: the loss.
        scored: the masks of the steps are scored.
        kink_width: of the steps, whose rounded kinks keep more for the backward pass.
    """
    explainer, explainee = round_pair(explainer, explainee, kink_width)
    device = explainee.mean.device
    fixed = {
        value.untyped_storage().data_ptr()
        for module in (explainer, explainee)
        for value in (*module.parameters(), *module.buffers())
    }
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(value) -> None:
        """Keep the memory, whose address would else be taken again and not counted, but not the tensor.

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
    shared = 4 * max(sizes, default=0) * default_batch(device) if scored else 0
    return SlotMemory(weights, sum(sizes), shared)


def free_memory(device: torch.device) -> int:
    """Bytes that may still be taken on a device, within this process's limits on the CPU."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return max(0, min(psutil.virtual_memory().available, _left_of_groups(), _left_of_address_space()))


def _left_of_address_space() -> int:
    """Bytes that `ulimit -v` leaves; a huge number where it sets no limit."""
    process = psutil.Process()
    limit = process.rlimit(psutil.RLIMIT_AS)[0] if hasattr(process, "rlimit") else -1
    return _NO_LIMIT if limit < 0 else limit - process.memory_info().vms


def _left_of_groups(root: Path = control_groups.ROOT, own: Path = control_groups.OWN) -> int:
    """Bytes that the control groups (a container, a Slurm job) leave; a huge number without a limit."""
    left = [_NO_LIMIT]
    for kind, level in control_groups.levels(_GROUP_FILES, root, own):
        left.append(_left_of_group(level, *_GROUP_FILES[kind]))
    return min(left)


def _left_of_group(folder: Path, limit: str, used: str) -> int:
    try:
        left = int((folder / limit).read_text()) - int((folder / used).read_text())
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return _NO_LIMIT
    # File cache counts as used, and is given back where memory is needed.
    return left + int(fields.get("inactive_file", fields.get("total_inactive_file", 0)))


class SideBySide:
    """Number of images finetuned side by side: what fits, and half of it wherever memory runs out.

    Args:
        asked: the most that are taken (`--batch-size`), or `auto`.
        memory: see `SlotMemory`.
        device: where to compute.
        images: number of images there are; no more are taken.
        free: free bytes (default: measured).
        quiet: do not print what is taken.
    """

    def __init__(
        self,
        asked: int | str,
        memory: SlotMemory,
        device: torch.device | str,
        images: int | None = None,
        free: int | None = None,
        quiet: bool = False,
    ):
        device = torch.device(device)
        free = free_memory(device) if free is None else free
        most = _MOST.get(device.type, _MOST["cpu"]) if asked == AUTO else int(asked)
        wanted = max(1, most if images is None else min(most, images))
        fits = memory.fits(free)
        self.n = max(1, min(wanted, fits))
        if asked != AUTO and self.n < wanted:
            needed = wanted * memory.slot + memory.shared
            log.warning(
                "%d images side by side need about %s and %s are free; taking %d (the results are the same)",
                wanted, _text(needed), _text(free), self.n,
            )  # fmt: skip
        if not quiet:
            print(f"memory: {memory}; {_text(free)} free, room for {fits}; taking {self.n} at once")

    def run(self, work: Callable[[int], Result]) -> Result:
        """Return `work(n)`, begun anew with half as many images wherever memory runs out.

        Raises:
            UserError: memory ran out with one image.
        """
        while True:
            try:
                return work(self.n)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.n == 1:
                    raise UserError(
                        "out of memory with a single image; choose a smaller explainer or another --device"
                    ) from None
            log.warning("out of memory with %d images side by side; going on with %d", self.n, self.n // 2)
            self.n //= 2
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_out_of_memory(error: Any) -> bool:
    """Return True for an exception that says that memory has run out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in _OUT_OF_MEMORY)


def _text(n_bytes: int) -> str:
    """Bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"
