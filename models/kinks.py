"""Gradients without jumps: the kinks of ReLU and ReLU6 rounded off in the backward pass alone.

At a kink the gradient of a piecewise linear network jumps, so two roundings of one activation may give 0 and
1, and the steps of finetuning spread the difference over the mask. Here the derivative is a ramp, so that
gradients differ as little as the activations do; the forward pass is unchanged. Dombrowski et al. 2019 smooth
explanations likewise, with a softplus.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TOPS = {nn.ReLU: None, nn.ReLU6: 6.0}


class RoundedReLU(nn.Module):
    """ReLU, or ReLU cut at `top`, whose derivative is a ramp at each kink.

    Args:
        width: half the length of each ramp, in units of the activation.
        top: upper bound, None for none.
    """

    def __init__(self, width: float, top: float | None = None):
        super().__init__()
        self.width, self.top = width, top

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return _Rounded.apply(x, self.width, self.top)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(context, x, width, top):
        context.save_for_backward(x)
        context.width, context.top = width, top
        return x.clamp(0, top)

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        # Distance inside the kinks, 3 for one width, as `hardsigmoid` wants it: one pass over the memory.
        slope = 3 / context.width
        if context.top is None:
            inside = x * slope
        else:
            half = context.top / 2
            inside = x.sub(half).abs_().mul_(-slope).add_(half * slope)
        return F.hardsigmoid(inside, inplace=True).mul_(gradient), None, None


def round_kinks(model: nn.Module, width: float) -> nn.Module:
    """Copy of a network, its weights shared, with `RoundedReLU` in place of each ReLU and ReLU6 module.

    Calls of functions stay as they are.

    Args:
        model: any.
        width: see `RoundedReLU`.
    """
    shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
    rounded = copy.deepcopy(model, shared)
    for name, part in list(rounded.named_modules()):
        if name and type(part) in _TOPS:
            rounded.set_submodule(name, RoundedReLU(width, _TOPS[type(part)]))
    return rounded


def round_pair(explainer: Any, explainee: Any, width: float) -> tuple[Any, Any]:
    """Return explainer and explainee as a step differentiates them; themselves at width 0."""
    if not width:
        return explainer, explainee
    return round_kinks(explainer, width), explainee.with_rounded_kinks(width)
