"""Outputs of classifiers: from any module's output to logits, the one form that all else works with.

Softmax or sigmoid inside a module is undone by its inverse, so probabilities come back as they were. One
output answers a question with yes or no: its logit stands against a 0, which makes class 0 "no" and 1 "yes".
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ltx.config import UserError

NO, YES = 0, 1
# Where a dictionary or an object may keep its logits, the likeliest first.
_NAMES = ("logits", "out", "output", "outputs", "pred", "preds", "prediction", "predictions", "scores", "y")
# Steps of autograd that only move values.
_MOVES = ("View", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Clone", "ToCopy", "Alias", "Permute",
          "Transpose", "Expand", "TBackward", "UnsafeView", "Contiguous")  # fmt: skip
_EPS = 1e-7


class NotLogits(UserError):
    """An output in which no logits of classes can be found."""


def tensor_of(output) -> Tensor:
    """The tensor that holds the logits: the output itself, its `logits`, its first tensor, ...

    Raises:
        NotLogits: there is none.
    """
    if isinstance(output, Tensor):
        return output
    for name in _NAMES:
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, tuple | list):
        first = next((value for value in output if isinstance(value, Tensor) and value.dim() > 0), None)
        if first is not None:
            return first
    kind = "nothing (None)" if output is None else f"a {type(output).__name__}"
    raise NotLogits(f"gives {kind}, in which there is no tensor of logits")


def rows_of(output, n_images: int) -> Tensor:
    """Any module's output to one row of values per image, (B, C).

    Raises:
        NotLogits: the output has no such shape.
    """
    values = tensor_of(output)
    sides = [side for side in values.shape[1:] if side != 1]
    if not values.is_floating_point():
        raise NotLogits(f"gives {values.dtype} values, which have no gradient; wanted floating logits")
    if values.dim() <= 1 and values.numel() == n_images:
        return values.reshape(n_images, 1)
    if values.dim() == 1 and n_images == 1:
        return values[None]
    if values.dim() < 2 or values.shape[0] != n_images or len(sides) > 1:
        raise NotLogits(
            f"gives {tuple(values.shape)} for {'one image' if n_images == 1 else f'{n_images} images'}; "
            "wanted logits (B, classes)"
        )
    return values.flatten(1)


@dataclass(frozen=True)
class Outputs:
    """Meaning of the rows that a module gives.

    Attributes:
        inside: `softmax` or `sigmoid` where the module ends in one, else empty.
        one: it has one output, the answer to a yes-or-no question.
    """

    inside: str = ""
    one: bool = False

    def logits(self, rows: Tensor) -> Tensor:
        """Rows (B, C) to logits (B, C); (B, 2) where there is one output."""
        if self.inside == "softmax":
            rows = rows.clamp(min=torch.finfo(rows.dtype).tiny).log()
        elif self.inside == "sigmoid":
            rows = rows.logit(_EPS)
        return torch.cat([torch.zeros_like(rows), rows], 1) if self.one else rows

    def describe(self) -> str | None:
        """The recognised kind of output, in words; None for plain logits."""
        said = []
        if self.inside:
            said.append(f"ends in a {self.inside}, which is undone (pass outputs='logits' if it does not)")
        if self.one:
            said.append(
                "has one output, read as the answer yes (class 1) or no (class 0); where it is a quantity, "
                "pass a function as the target"
            )
        return " and ".join(said) or None


def recognise(rows: Tensor, loud: Tensor, multi_label: bool) -> Outputs:
    """Read off rows, with their autograd history, and those of images of absurd contrast, what they are.

    A softmax is known by its rows, which add up to 1. A sigmoid is known as the last step in autograd's
    history; where that is hidden (TorchScript), by values that never leave [0, 1], if there is one output or
    the classes are known to be independent.
    """
    one = rows.shape[1] == 1
    values = torch.cat([rows, loud]).detach().float()
    if not (values.min() >= 0 and values.max() <= 1 + 1e-3):
        return Outputs(one=one)
    tolerance = 1e-4 if rows.dtype in (torch.float32, torch.float64) else 2e-2
    if not one and not multi_label and (values.sum(1) - 1).abs().max() <= tolerance:
        return Outputs("softmax")
    last = _last_step(rows)
    hidden = last is None or not last.endswith("Backward0")
    if (last or "").startswith("Sigmoid") or (hidden and (one or multi_label)):
        return Outputs("sigmoid", one)
    return Outputs(one=one)


def _last_step(rows: Tensor) -> str | None:
    """Name of the last step of autograd that computed something, None where there is no history."""
    node = rows.grad_fn
    while node is not None and node.name().startswith(_MOVES):
        node = node.next_functions[0][0]
    return None if node is None else node.name()
