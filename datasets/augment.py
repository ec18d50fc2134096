"""Random views of training images: crops and mirror images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

_SMALLEST = 0.35  # share of the image that a crop keeps at least


def crops_and_flips(images: Tensor, seeds: Sequence[tuple[int, ...]]) -> Tensor:
    """Images (B, 3, H, W), each cropped at random to at least 35% of it, resized back, and mirrored or not.

    Args:
        images: of any value range.
        seeds: one for each image, which alone decides about its view: the same however a batch is shared out.
    """
    view = v2.Compose(
        [
            v2.RandomResizedCrop(images.shape[-2:], scale=(_SMALLEST, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )
    views = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds, strict=True):
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            views.append(view(image))
    return torch.stack(views)
