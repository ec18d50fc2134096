"""Baselines that need nothing but the explainee, or not even that."""

import hashlib

import torch
from torch import Tensor

from config import BaselineOptions
from main.baselines.base import Batch
from models.explainee import Explainee


def random_map(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Uniform noise, drawn for each image from the seed and the image's name."""
    h, w = batch.images.shape[-2:]
    maps = []
    for name in batch.names:
        digest = hashlib.sha256(f"{options.seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        maps.append(torch.rand(h, w, generator=generator))
    return torch.stack(maps).to(batch.images.device)


def input_gradient(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Largest absolute derivative of the class's logit over the channels (Simonyan et al. 2014)."""
    return class_gradient(explainee, batch.images, batch.classes).abs().amax(1)


def class_gradient(explainee: Explainee, images: Tensor, classes: Tensor) -> Tensor:
    """Derivative of each image's class logit by its pixels, (B, 3, H, W)."""
    images = images.detach().requires_grad_(True)
    logits = explainee(images).gather(1, classes[:, None]).sum()
    return torch.autograd.grad(logits, images)[0]
