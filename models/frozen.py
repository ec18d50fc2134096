"""Linear layers of a frozen network in the fastest form that this machine has: the same function."""

import copy
import functools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltx.models.precision import logits_of

# Largest deviation, as a share of the largest output.
_TOLERANCE = {"float32": 1e-4, "bf16": 0.1}


class FrozenLinear(nn.Module):
    """A linear layer whose weights never change: input gradients only, weights cast or laid out once.

    In float32 on an AMD CPU it goes through oneDNN, which is more than twice as fast there as the MKL that
    PyTorch takes.

    Args:
        linear: the layer.
        precision: `bf16` keeps the weights in bfloat16, for use under autocast.
    """

    def __init__(self, linear: nn.Linear, precision: str):
        super().__init__()
        dtype = torch.bfloat16 if precision == "bf16" else linear.weight.dtype
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", linear.weight.detach().to(dtype))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().to(dtype))
        self.by_onednn = precision == "float32" and dtype == torch.float32 and prefers_onednn()
        self.register_buffer("transposed", self.weight.t().contiguous() if self.by_onednn else None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self.by_onednn and x.device.type == "cpu" and x.dtype == torch.float32:
            return _OneDnnLinear.apply(x, self.weight, self.bias, self.transposed)
        return F.linear(x, self.weight, self.bias)


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, bias, transposed):
        context.transposed = transposed
        return _product(x, weight, bias)

    @staticmethod
    def backward(context, gradient):
        return _product(gradient, context.transposed, None), None, None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")


@functools.cache
def prefers_onednn() -> bool:
    """Return True on AMD CPUs, where MKL leaves AVX-512 unused and oneDNN takes float32 products."""
    try:
        vendor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and "AuthenticAMD" in vendor


@torch.no_grad()
def freeze_linears(model: nn.Module, precision: str, input_shape: tuple[int, ...]) -> nn.Module | None:
    """A copy of a frozen model with `FrozenLinear` for its linear layers, its classifier left as it is.

    The copy is used only where its output on noise agrees with the model's.

    Args:
        model: frozen, in eval mode, on its device.
        precision: see `models.precision`.
        input_shape: (C, H, W) that it takes.

    Returns:
        The copy, or None where nothing is to be gained or the outputs differ.
    """
    parameter = next(model.parameters())
    if precision == "float32" and not (prefers_onednn() and parameter.device.type == "cpu"):
        return None
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None
    classifiers = classifier if isinstance(classifier, tuple) else (classifier,)
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and all(module is not one for one in classifiers)
    ]
    if not names:
        return None
    frozen = copy.deepcopy(model)
    for name in names:
        frozen.set_submodule(name, FrozenLinear(frozen.get_submodule(name), precision))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *input_shape, generator=generator, device="cpu").to(parameter)
    wanted, found = (logits_of(net, noise, precision) for net in (model, frozen))
    close = torch.allclose(wanted, found, rtol=0, atol=_TOLERANCE[precision] * wanted.abs().max().item())
    return frozen if close else None
