"""Any module as a user has it, taken in as it stands: unwrapped, frozen, in eval mode, and untouched."""

import itertools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ltx.config import UserError
from ltx.models.sharing import shared_copy
from ltx.models.specs import InputSpec

log = logging.getLogger(__name__)

_GREY = (0.299, 0.587, 0.114)  # as Pillow's convert("L")


class _Function(nn.Module):
    """A function in the place of a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor):
        return self.function(x)


def take_in(module, name: str) -> nn.Module:
    """A frozen copy in eval mode that shares the module's weights, and leaves the module as it is.

    Wrappers for several devices and of `torch.compile` are left off: what they hold is the same function.

    Raises:
        UserError: it cannot be called, or has lazy layers that were never run.
    """
    if not isinstance(module, nn.Module):
        if not callable(module):
            raise UserError(f"'{name}' is no module: a {type(module).__name__} cannot be called with images")
        module = _Function(module)
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if inner is None:
            break
        module = inner
    if any(is_lazy(value) for value in itertools.chain(module.parameters(), module.buffers())):
        raise UserError(f"'{name}' has lazy layers without weights: pass one batch through it first")
    try:
        with torch.no_grad():  # TorchScript copies its weights, with their history where there is one
            own = shared_copy(module, frozen=True)
    except Exception as error:  # what an object holds may refuse to be copied in any way
        log.warning("'%s' cannot be copied (%s), so it is itself frozen", name, str(error)[:100])
        own = module
    freeze(own)
    set_eval(own)
    return own


def freeze(module: nn.Module) -> nn.Module:
    """Lets no gradient into a module's weights; in place."""
    for value in module.parameters():  # modules of TorchScript refuse requires_grad_
        value.requires_grad_(False)
    return module


def set_eval(module: nn.Module) -> None:
    """Put a module in eval mode; programs of `torch.export` are in it and refuse to be told."""
    try:
        module.eval()
    except NotImplementedError:
        log.info("%s has no modes", type(module).__name__)


def check_finite(module: nn.Module, name: str) -> None:
    """Raise `UserError` where a weight is NaN or infinite."""
    for key, value in itertools.chain(module.named_parameters(), module.named_buffers()):
        # A sum is NaN or infinite where a value is; a sum that overflows is looked at again.
        if value.is_floating_point() and not value.sum().isfinite() and not value.isfinite().all():
            raise UserError(
                f"'{name}' holds NaN or infinite weights: '{key}' has {int((~value.isfinite()).sum())} of "
                f"{value.numel()}; train it again, or take an earlier checkpoint"
            )


def place_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device of a module, and the type that its weights are computed in."""
    tensors = [*module.parameters(), *module.buffers()]
    device = next((value.device for value in tensors), torch.device("cpu"))
    floats = (value.dtype for value in tensors if value.is_floating_point())
    return device, next(floats, torch.float32)


def as_spec(module: nn.Module, mean, std, size) -> InputSpec:
    """Size and normalisation from what people pass: numbers, sequences, tensors.

    One value of mean and std stands for all channels; how many there are, the first convolution says.

    Raises:
        UserError: values out of range, or of different numbers.
    """
    values = {"mean": mean, "std": std}
    for key, value in values.items():
        value = value.flatten().tolist() if hasattr(value, "flatten") else value
        values[key] = tuple(map(float, value if isinstance(value, Sequence) else [value]))
    mean, std = values.values()
    if max(len(mean), len(std)) == 1:
        mean, std = mean * (n := _input_channels(module)), std * n
    elif 1 in (len(mean), len(std)):
        n = max(len(mean), len(std))
        mean, std = mean * (n // len(mean)), std * (n // len(std))
    if len(mean) != len(std):
        raise UserError(f"mean has {len(mean)} values and std {len(std)}; wanted one per channel")
    if not all(value > 0 for value in std):
        raise UserError(f"std {std} must be above 0")
    if not all(-1 <= value <= 1 for value in mean):
        raise UserError(f"mean {mean} is not on pixels in [0, 1]: divide mean and std by 255")
    size = (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"input_size {size}: wanted (H, W)")
    return InputSpec(size, mean, std)


def _input_channels(module: nn.Module) -> int:
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def to_channels(images: Tensor, n: int) -> Tensor:
    """RGB images (B, 3, H, W) as one channel where a network takes one; all others as they are."""
    if n != 1 or images.shape[1] != 3:
        return images
    weights = torch.tensor(_GREY, device=images.device, dtype=images.dtype)
    return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def probes(spec: InputSpec, n: int, device: torch.device) -> Tensor:
    """Images (n, C, H, W) in [0, 1] that look like nothing: always the same noise, of different contrast."""
    noise = torch.rand(n, len(spec.mean), *spec.size, generator=torch.Generator().manual_seed(0))
    level = torch.linspace(0.2, 1.0, n).view(-1, 1, 1, 1)
    return (noise * level).to(device)


def same_answers(first: Tensor, second: Tensor) -> bool:
    """Return True if two passes over the same images agree, up to rounding."""
    return torch.allclose(first, second, rtol=1e-2, atol=1e-3 * float(first.abs().max()) + 1e-6)


def plain(error: BaseException) -> str:
    """The first line of an error of PyTorch, at most 200 characters."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
