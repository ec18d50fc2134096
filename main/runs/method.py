"""A method is a function from a batch of images and classes to maps; `ask` chooses the classes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ltx.models.explainee import Explainee


def _ignore(done: int) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class Batch:
    """Input of a method: N rows, each one image and one class.

    Attributes:
        images: (N, 3, H, W) in [0, 1], on the device.
        classes: (N,) class to explain.
        names: name of each image in its set.
        scored: (N,) class whose metrics select, for methods that select.
        index: (N,) position of each image in the run's manifest.
        logits: (N, C) logits of the explainee.
        progress: takes the number of rows that have just been finished.
    """

    images: Tensor
    classes: Tensor
    names: list[str]
    scored: Tensor | None = None
    index: Tensor | None = None
    logits: Tensor | None = None
    progress: Callable[[int], None] = _ignore

    def split(self, size: int) -> Iterator["Batch"]:
        """Yield parts of at most `size` rows."""
        for start in range(0, len(self.images), size):
            rows = slice(start, start + size)
            tensors = (self.scored, self.index, self.logits)
            scored, index, logits = (None if values is None else values[rows] for values in tensors)
            names = self.names[rows]
            yield Batch(self.images[rows], self.classes[rows], names, scored, index, logits, self.progress)


@dataclass(frozen=True)
class Maps:
    """The maps of a batch of N rows.

    Attributes:
        token_masks: by variant, (N, h, w) in [0, 1].
        saliency: by variant, (N, H, W), for methods that are not token-shaped.
        figures: further values by name, (N, ...), such as the loss of each step.
    """

    token_masks: dict[str, Tensor] = field(default_factory=dict)
    saliency: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)


def joined(parts: list[Maps]) -> Maps:
    """Maps of consecutive parts of a batch as one."""
    groups = ([getattr(part, group) for part in parts] for group in ("token_masks", "saliency", "figures"))
    return Maps(*({name: torch.cat([one[name] for one in group]) for name in group[0]} for group in groups))


@dataclass(frozen=True)
class Method:
    """A method with what a run records of it.

    Attributes:
        name: `method` of run.json.
        explain: a batch to its maps.
        identity: what tells its runs apart, such as the hash of its weights; JSON-able.
        record: further content of run.json (`explainer`, `methods`, and `candidates`, the number of maps that
            each variant was chosen from).
        options: the script's options with what they leave open filled in (default: those of the job).
        at_once: work units that are explained together.
    """

    name: str
    explain: Callable[[Batch], Maps]
    identity: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    options: Any = None
    at_once: int = 1


@dataclass(frozen=True)
class Asked:
    """The classes to explain in a batch of B images, N rows in all.

    Attributes:
        rows: (N,) image of each row, in order.
        classes: (N,) class to explain.
        scored: (N,) class whose metrics select.
        figures: further values by name, (N,), for the mask files.
    """

    rows: Tensor
    classes: Tensor
    scored: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)


# From samples of an image set, their logits (B, C) and the explainee to the classes that are explained.
Ask = Callable[[dict[str, Any], Tensor, Explainee], Asked]


def one_class(options) -> Ask:
    """Ask for the true or the predicted class of each image, as `ExplaineeOptions` say."""

    def ask(data: dict[str, Any], logits: Tensor, _: Explainee) -> Asked:
        labels, predicted = data["label"].to(logits.device), logits.argmax(1)
        explained = labels if options.train_model_by_target_gt_class else predicted
        scored = {"explained": explained, "target": labels, "predicted": predicted}[options.score_class]
        return Asked(torch.arange(len(labels)), explained, scored)

    return ask
