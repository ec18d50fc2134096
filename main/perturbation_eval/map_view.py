"""What metrics look at: a batch of images, their maps, and what the explainee says, each computed once."""

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
        names: name of each image; what is drawn at random depends on it.
        of_images: what depends on the images alone; shared by the views of other maps of the same images.
    """

    explainee: torch.nn.Module
    images: Tensor
    classes: Tensor
    saliency: Tensor
    shown: Tensor
    unmasked: tuple[Tensor, Tensor]
    fill: str = "black"
    batch_size: int = 64
    names: list[str] | None = None
    of_images: dict[str, Any] = field(default_factory=dict)
    of_maps: dict[Any, Any] = field(default_factory=dict)

    def curve(self, most_salient_first: bool) -> tuple[Tensor, Tensor]:
        """Probability and correctness (B, 10) along a removal curve."""
        if most_salient_first not in self.of_maps:
            self.of_maps[most_salient_first] = removal_curve(
                self.explainee, self.images, self.saliency, self.classes, most_salient_first,
                self.unmasked, self.fill, self.batch_size,
            )  # fmt: skip
        return self.of_maps[most_salient_first]

    def once_per_image_set(self, key: str, compute: Callable[[], Any]) -> Any:
        """`compute()`, which depends on the images alone, or what it gave for another map of them."""
        if key not in self.of_images:
            self.of_images[key] = compute()
        return self.of_images[key]

    def once_per_map(self, key: str, compute: Callable[[], Any]) -> Any:
        """`compute()`, or what it gave for another metric."""
        if key not in self.of_maps:
            self.of_maps[key] = compute()
        return self.of_maps[key]

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
