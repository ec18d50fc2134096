"""Baselines that need nothing but the explainee's gradient, or not even the explainee."""

import torch
from torch import Tensor

from ltx.main.baselines.base import Batch, image_generator
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee

# Standard deviation of the centre map, as a share of each side.
_CENTRE_SIGMA = 0.25


def random_map(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Uniform noise, drawn for each image from the seed and the image's name."""
    h, w = batch.images.shape[-2:]
    draws = (image_generator(options.seed, name) for name in batch.names)
    maps = [torch.rand(h, w, generator=draw, device="cpu") for draw in draws]
    return torch.stack(maps).to(batch.images.device)


def centre_gaussian(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """The same for every image: a Gaussian in the middle, its sigma a quarter of each side."""
    curves = []
    for side in batch.images.shape[-2:]:
        place = (torch.arange(side, device=batch.images.device) + 0.5) / side - 0.5
        curves.append(torch.exp(-(place**2) / (2 * _CENTRE_SIGMA**2)))
    return torch.outer(*curves).expand(len(batch.images), -1, -1)


def input_gradient(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Largest absolute derivative of the class's logit over the channels (Simonyan et al. 2014)."""
    images = batch.images.detach().requires_grad_(True)
    logits = explainee(images).gather(1, batch.classes[:, None]).sum()
    return torch.autograd.grad(logits, images)[0].abs().amax(1)
