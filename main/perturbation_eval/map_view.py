"""Inputs of the metrics: a batch of images, their maps, and the explainee's outputs, each computed once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ltx.main.perturbation_eval.curves import removal_curve
from ltx.models.explainee import read_class
from ltx.models.masking import min_max


@dataclass
class ImageBatch:
    """A batch of images and what depends on them alone, shared by the views of all their maps.

    Attributes:
        explainee: images to logits.
        images: (B, 3, H, W) in [0, 1].
        classes: (B,) class that is scored.
        fill: what replaces removed pixels.
        batch_size: images that go through the explainee at once.
        names: of the images; random draws depend on them.
    """

    explainee: torch.nn.Module
    images: Tensor
    classes: Tensor
    fill: str = "black"
    batch_size: int = 64
    names: list[str] | None = None
    _made: dict[str, Any] = field(default_factory=dict)

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return `compute()`, or its result for another map of the same images."""
        if key not in self._made:
            self._made[key] = compute()
        return self._made[key]

    def probability(self, masks: Tensor) -> Tensor:
        """Return the probability of the class on image times mask (B, H, W)."""
        batches = zip(*(x.split(self.batch_size) for x in (self.images, masks, self.classes)), strict=True)
        responses = [read_class(self.explainee, x * mask[:, None], classes) for x, mask, classes in batches]
        return torch.cat([probability for probability, _ in responses])

    @cached_property
    def unmasked(self) -> tuple[Tensor, Tensor]:
        """Probability and correctness on the images themselves, see `read_class`."""
        return read_class(self.explainee, self.images, self.classes)


@dataclass
class MapView:
    """Saliency maps of a batch, and the explainee's outputs under them.

    Attributes:
        batch: the images.
        saliency: (B, H, W), decides the order of removal.
        shown: (B, H, W) in [0, 1], the mask that multiplies the image in ADP and PIC.
    """

    batch: ImageBatch
    saliency: Tensor
    shown: Tensor
    _made: dict[str, Any] = field(default_factory=dict)

    def curve(self, most_salient_first: bool) -> tuple[Tensor, Tensor]:
        """Return probability and correctness (B, 10) along a removal curve."""
        one = self.batch
        return self.once(
            f"removal {most_salient_first}",
            lambda: removal_curve(
                one.explainee, one.images, self.saliency, one.classes, most_salient_first, one.unmasked,
                one.fill, one.batch_size,
            ),
        )  # fmt: skip

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return `compute()`, or its result for another metric."""
        if key not in self._made:
            self._made[key] = compute()
        return self._made[key]

    @cached_property
    def shown_probability(self) -> Tensor:
        """Probability of the class on image times mask."""
        return self.batch.probability(self.shown)

    @cached_property
    def min_max_probability(self) -> Tensor:
        """The same with every map scaled to [0, 1] first."""
        return self.batch.probability(min_max(self.saliency))
