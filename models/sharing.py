"""Copies of networks that share their tensors: structure is cheap, and each thread can have its own."""

import copy

import torch
from torch import Tensor, nn


def shared_copy(module: nn.Module, frozen: bool = False) -> nn.Module:
    """A copy of a module that holds the same weights in the same memory.

    What is done to the copy's structure (hooks, modes, swapped weights) leaves the module as it is.

    Args:
        module: of any kind that can be copied.
        frozen: the copy's parameters take no gradient, else as the module's.
    """
    memo: dict[int, Tensor] = {}
    for part in module.modules():
        tensors = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        for value in part.__dict__.values():  # tensors that are attributes, and caches of them
            tensors += value.values() if isinstance(value, dict) else [value]
        for value in tensors:
            if type(value) in (Tensor, nn.Parameter):
                memo[id(value)] = _twin(value, frozen)
    return copy.deepcopy(module, memo)


@torch.inference_mode(False)
def _twin(value: Tensor, frozen: bool) -> Tensor:
    """The same values, as a leaf; those made in inference mode, which autograd refuses, are copied."""
    twin = value.clone() if value.is_inference() else value.detach()
    if not isinstance(value, nn.Parameter):
        return twin
    needs_grad = value.requires_grad and not frozen
    return nn.Parameter(twin, requires_grad=needs_grad)
