"""Networks in bfloat16 where that is asked for: autocast inside, float32 outside."""

import contextlib

import torch
from torch import Tensor, nn

from ltx.models.outputs import rows_of

PRECISIONS = ("float32", "bf16")


def autocast(precision: str, device: torch.device):
    """Within it, matrix products and convolutions run in the given precision.

    Args:
        precision: one of `PRECISIONS`.
        device: where the network lies.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def in_full(values: Tensor, precision: str) -> Tensor:
    """Convert the output of autocast back to float32; return anything else as it is."""
    return values if precision == "float32" else values.float()


def output_of(model: nn.Module, normalised: Tensor, precision: str):
    """Output of a classifier, its last layer computed in float32 where it is timm's.

    The resolution of bfloat16 near a logit of 10 is 0.06: a last layer in it would make ties of classes.
    """
    has_parts = hasattr(model, "forward_features") and hasattr(model, "forward_head")
    if precision != "float32" and has_parts:
        with autocast(precision, normalised.device):
            features = model.forward_features(normalised)
        return model.forward_head(features.float())
    with autocast(precision, normalised.device):
        return model(normalised)


def logits_of(model: nn.Module, normalised: Tensor, precision: str) -> Tensor:
    """A classifier's rows of values (B, C) as it gives them, see `models.outputs`."""
    return in_full(rows_of(output_of(model, normalised, precision), len(normalised)), precision)
