"""The perturbation metrics, each a small class; what they share is computed once per batch.

To add one: a class with `name`, `higher_is_better` and `per_image(view)`, and a place in `METRICS`.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from main.perturbation_eval.curves import auc, read_class, removal_curve
from models.masking import min_max


@dataclass
class MapView:
    """Saliency maps of a batch beside what the explainee says, computed when first asked for.

    Attributes:
        explainee: images to logits.
        images: (B, 3, H, W) in [0, 1].
        classes: (B,) class that is scored.
        saliency: (B, H, W), decides the order of removal.
        shown: (B, H, W) in [0, 1], the mask that multiplies the image in ADP and PIC.
        unmasked: probability and correctness on the unmasked images, see `curves.read_class`.
        fill: what stands where pixels are removed.
        batch_size: images that go through the explainee at once.
    """

    explainee: torch.nn.Module
    images: Tensor
    classes: Tensor
    saliency: Tensor
    shown: Tensor
    unmasked: tuple[Tensor, Tensor]
    fill: str = "black"
    batch_size: int = 64
    _curves: dict = field(default_factory=dict)

    def curve(self, most_salient_first: bool) -> tuple[Tensor, Tensor]:
        """Probability and correctness (B, 10) along a removal curve."""
        if most_salient_first not in self._curves:
            self._curves[most_salient_first] = removal_curve(
                self.explainee, self.images, self.saliency, self.classes, most_salient_first,
                self.unmasked, self.fill, self.batch_size,
            )  # fmt: skip
        return self._curves[most_salient_first]

    @cached_property
    def shown_probability(self) -> Tensor:
        """Probability of the class on image times mask."""
        return self._probability(self.shown)

    @cached_property
    def min_max_probability(self) -> Tensor:
        """The same with every map scaled to [0, 1] first."""
        return self._probability(min_max(self.saliency))

    def _probability(self, mask: Tensor) -> Tensor:
        parts = [
            read_class(self.explainee, image * part[:, None], classes)[0]
            for image, part, classes in zip(
                *(values.split(self.batch_size) for values in (self.images, mask, self.classes)), strict=True
            )
        ]
        return torch.cat(parts)


class RemovalAuc:
    """Area under a removal curve, 0 to 90.

    POS, NEG: whether the class stays on top (released). DEL, INS: its probability along the same two curves;
    this INS removes the least salient pixels first and is not RISE's insertion.
    """

    def __init__(self, name: str, most_salient_first: bool, probability: bool):
        self.name, self.higher_is_better = name, not most_salient_first
        self.most_salient_first, self.probability = most_salient_first, probability

    def curve(self, view: MapView) -> Tensor:
        """The curve itself, (B, 10)."""
        return view.curve(self.most_salient_first)[0 if self.probability else 1]

    def per_image(self, view: MapView) -> Tensor:
        """(B,)"""
        return auc(self.curve(view))


class AverageDrop:
    """ADP: 100 * max(0, p - p_m) / p, with p the probability on the image and p_m on image times mask."""

    higher_is_better = False

    def __init__(self, name: str, masked: str):
        self.name, self.masked = name, masked

    def per_image(self, view: MapView) -> Tensor:
        """(B,)"""
        p = view.unmasked[0].double()
        tiny = torch.finfo(torch.float32).tiny
        return 100 * (p - getattr(view, self.masked).double()).clamp(min=0) / p.clamp(min=tiny)


class IncreaseInConfidence:
    """PIC: 100 where the probability on image times mask is above that on the image, else 0."""

    higher_is_better = True

    def __init__(self, name: str, masked: str):
        self.name, self.masked = name, masked

    def per_image(self, view: MapView) -> Tensor:
        """(B,)"""
        return 100.0 * (getattr(view, self.masked) > view.unmasked[0]).double()


METRICS = (
    RemovalAuc("POS", most_salient_first=True, probability=False),
    RemovalAuc("NEG", most_salient_first=False, probability=False),
    RemovalAuc("DEL", most_salient_first=True, probability=True),
    RemovalAuc("INS", most_salient_first=False, probability=True),
    AverageDrop("ADP", "shown_probability"),
    IncreaseInConfidence("PIC", "shown_probability"),
    AverageDrop("ADP_minmax", "min_max_probability"),
    IncreaseInConfidence("PIC_minmax", "min_max_probability"),
)
