"""Images in the forms in which people hold them, for the Python interface."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ltx.config import CropSize, UserError
from ltx.datasets.base import crop_box, resize_and_crop


def as_images(images, channels: int) -> Tensor:
    """Images (B, C, H, W), float32 in [0, 1].

    Args:
        images: a tensor or array (B, C, H, W) or (C, H, W), floating in [0, 1] or uint8; an array of uint8
            (H, W), (H, W, C) or (B, H, W, C); a Pillow image, or a list of equally large ones.
        channels: C of the explainee; one with a single channel takes RGB too, and grey comes back as RGB.

    Raises:
        UserError: another shape, type or range.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, Sequence) and images and isinstance(images[0], Image.Image):
        if len({image.size for image in images}) > 1:
            raise UserError("pictures of different sizes: pass them one by one, or resize them first")
        images = torch.stack([TF.pil_to_tensor(image.convert("RGB")) for image in images])
    elif isinstance(images, np.ndarray):
        images = _of_array(images, channels)
    if not isinstance(images, Tensor):
        raise UserError(f"images are a {type(images).__name__}; wanted a tensor (B, {channels}, H, W)")
    given = tuple(images.shape)
    images = images[None] if images.dim() == 3 else images
    taken = (1, 3) if channels == 1 else (channels,)
    if images.dim() != 4 or images.shape[1] not in taken or 0 in images.shape:
        advice = ", channels first" if given and given[-1] in taken else ""
        raise UserError(f"images are {given}; wanted (B, {channels}, H, W){advice}")
    images = _in_range(images.detach())
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _of_array(array: np.ndarray, channels: int) -> Tensor:
    """An array as a tensor, channels first."""
    if array.dtype == np.uint8 and array.ndim == 2:
        array = array[None, None]
    last = array.ndim >= 3 and array.shape[-1] in (channels, 3) and array.shape[-3] not in (channels, 3)
    if last:
        array = np.moveaxis(array, -1, -3)
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError as error:
        raise UserError(f"images are an array of {array.dtype}; wanted floats in [0, 1] or uint8") from error


def _in_range(images: Tensor) -> Tensor:
    if images.is_inference():
        images = images.clone()
    if images.dtype in (torch.uint8, torch.uint16):
        images = images.float() / torch.iinfo(images.dtype).max
    elif not images.is_floating_point():
        raise UserError(f"images are {images.dtype}; wanted floats in [0, 1], or uint8 in 0 ... 255")
    images = images.float()
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):
        advice = "; divide them by 255" if low >= 0 and 1 < high <= 255 else ""
        raise UserError(
            f"images must lie in [0, 1]: the explainee normalises them itself; these lie in "
            f"[{low:.3g}, {high:.3g}]{advice}"
        )
    return images


def to_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) at the explainee's size: bilinear, antialiased; with a `CropSize` their middle.

    Those of that size already are taken as they are.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    if isinstance(size, CropSize):
        return resize_and_crop(images, size).clamp(0, 1)
    return TF.resize(images, list(size), antialias=True).clamp(0, 1)


def seen_part(shape: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of images (H, W) that the explainee sees: all of them, but with a `CropSize`."""
    if not isinstance(size, CropSize) or shape == tuple(size):
        return slice(0, shape[0]), slice(0, shape[1])
    left, top, right, bottom = crop_box((shape[1], shape[0]), size)
    return slice(top, bottom), slice(left, right)
