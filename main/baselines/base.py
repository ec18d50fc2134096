"""What a baseline is: a function from images and classes to saliency maps, with a name and a source."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from config import BaselineOptions
from models.explainee import Explainee


@dataclass(frozen=True)
class Batch:
    """What a baseline explains at once.

    Attributes:
        images: (B, 3, H, W) in [0, 1].
        classes: (B,) class to explain.
        names: name of each image in its set.
    """

    images: Tensor
    classes: Tensor
    names: list[str]


@dataclass(frozen=True)
class Baseline:
    """A method that run_baselines.py knows.

    Attributes:
        compute: (explainee, batch, options) to maps (B, H, W), larger where more salient, of any scale.
        source: who defined it.
    """

    compute: Callable[[Explainee, Batch, BaselineOptions], Tensor]
    source: str
