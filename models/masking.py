"""From a token mask to a saliency map, and from an image and a map to a masked image."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF


def upsample(token_mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Token masks (..., h, w) to saliency maps (..., H, W): bilinear, `align_corners=False`."""
    flat = token_mask.reshape(-1, 1, *token_mask.shape[-2:])
    maps = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return maps.reshape(*token_mask.shape[:-2], *maps.shape[-2:])


def fill_of(images: Tensor, fill: str) -> Tensor | float:
    """Return the fill of removed pixels for images (B, 3, H, W) in [0, 1].

    `black` is 0 (released), `mean` each image's own mean colour, `blur` the image under a Gaussian 11 pixels
    wide with sigma 5 (the size of RISE's; Petsiuk et al. 2018).
    """
    if fill == "black":
        return 0.0
    if fill == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    return TF.gaussian_blur(images, kernel_size=[11, 11], sigma=[5.0, 5.0])


def apply_mask(images: Tensor, mask: Tensor, fill: str = "black") -> Tensor:
    """Keep images (B, 3, H, W) in [0, 1] where mask (B, 1, H, W) is 1: `x * m + fill * (1 - m)`."""
    masked = images * mask
    return masked if fill == "black" else masked + fill_of(images, fill) * (1 - mask)


def with_halo(masks: Tensor, halo: float) -> Tensor:
    """Token masks (B, 1, h, w) in [0, 1] with a faint halo: `1 - (1 - m) * (1 - halo * G(m))`.

    A trained mask leaves most pixels alike, and their order to noise: speckle that no classifier has seen. G
    is a Gaussian with a sigma of a quarter of each side, so the halo orders them by how near they are to what
    the mask keeps. Not in the paper; 0 (released) changes nothing.
    """
    if halo == 0:
        return masks
    rows, columns = (_gaussian(side, masks) for side in masks.shape[-2:])
    return 1 - (1 - masks) * (1 - halo * (rows @ masks @ columns.T))


def _gaussian(side: int, like: Tensor) -> Tensor:
    """Weights (side, side) that blur along one axis; each row adds up to 1, at the edges too."""
    places = torch.arange(side, device=like.device, dtype=like.dtype)
    return (-8 * ((places - places[:, None]) / side) ** 2).softmax(1)


def min_max(maps: Tensor) -> Tensor:
    """Maps (B, ...) scaled to [0, 1] each on its own; a constant map becomes 0."""
    flat = maps.flatten(1)
    low, high = flat.min(1).values, flat.max(1).values
    shape = (-1,) + (1,) * (maps.dim() - 1)
    span = (high - low).view(shape)
    return torch.where(span > 0, (maps - low.view(shape)) / span.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)
