"""Base class of the image sets: a torch dataset of dictionaries with known names and labels."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from ltx.config import CropSize, UserError

NO_LABEL = -1
# Pixels of a mask that belong to no side: never counted, or left unlabelled by VOC's annotators.
IGNORED, VOID = -1, 255


class BadImageError(UserError):
    """One image of a set cannot be used, which says nothing of the others; `--on-bad-image` decides."""


class ImageSet(Dataset, ABC):
    """Images with names and, where there are any, labels and object masks.

    `self[i]` is a dictionary: `image` float32 (3, H, W) in [0, 1], `label` int (-1: none), `index` int, and
    `mask` int64 (H, W), 1 on the object and 0 elsewhere (-1: ignored; 255: void, where `has_void`), where
    `has_masks`.

    Attributes:
        image_size: (H, W) of every image.
        names: name of each image, unique within the set; what a manifest lists.
        labels: class of each image, -1 where there is none.
    """

    has_masks = False
    has_void = False

    def __init__(self, image_size: tuple[int, int]):
        height, width = image_size
        self.image_size = image_size if isinstance(image_size, CropSize) else (height, width)
        self.names: list[str] = []
        self.labels: list[int] = []

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_labels(self) -> bool:
        """True where every image has a label."""
        return bool(self.labels) and min(self.labels) >= 0

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON-able description (`kind`, `root`, ...) from which `datasets.build` makes the same set."""


def to_tensor(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """The input protocol: RGB, resized to (H, W) directly (bilinear, antialiased), float32 in [0, 1].

    With a `CropSize`, its shorter side is resized and its middle cropped.
    """
    image = image.convert("RGB")
    if isinstance(size, CropSize):
        resized = resize_and_crop(image, size)
    else:
        resized = F.resize(image, list(size), interpolation=F.InterpolationMode.BILINEAR, antialias=True)
    return F.to_dtype(F.pil_to_tensor(resized), torch.float32, scale=True)


def mask_to_tensor(mask: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Label map (H0, W0) to int64 (H, W), nearest neighbour; keeps -1."""
    image = Image.fromarray(np.asarray(mask).astype(np.int16).astype(np.int32), mode="I")
    if isinstance(size, CropSize):
        resized = resize_and_crop(image, size, "nearest")
    else:
        resized = F.resize(image, list(size), interpolation=F.InterpolationMode.NEAREST)
    return torch.from_numpy(np.array(resized, dtype=np.int64))


def resize_and_crop(image, size: CropSize, interpolation: str | None = None):
    """The middle of a picture or tensor, as timm's and torchvision's transforms for evaluation crop it.

    Args:
        image: a Pillow image, or a tensor (..., H, W).
        size: what is wanted.
        interpolation: instead of the size's own.
    """
    mode = F.InterpolationMode(interpolation or size.interpolation)
    height, width = F.get_size(image)
    sides = [math.floor(side / size.crop_pct) for side in size]
    if sides[0] == sides[1]:
        resized = F.resize(image, [sides[0]], interpolation=mode, antialias=True)
    else:  # the factor that covers both
        ratio = max(sides[0] / height, sides[1] / width)
        sides = [round(height * ratio), round(width * ratio)]
        resized = F.resize(image, sides, interpolation=mode, antialias=True)
    return F.center_crop(resized, list(size))


def crop_box(picture: tuple[int, int], size: CropSize) -> tuple[int, int, int, int]:
    """The part of a picture of (width, height) that `resize_and_crop` keeps: left, top, right, bottom."""
    width, height = picture
    ratio = max(math.floor(size[0] / size.crop_pct) / height, math.floor(size[1] / size.crop_pct) / width)
    rows, columns = (min(whole, round(side / ratio)) for whole, side in ((height, size[0]), (width, size[1])))
    left, top = (width - columns) // 2, (height - rows) // 2
    return left, top, left + columns, top + rows


def seen(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The part of a picture that an explainee of this input size sees, at the picture's own resolution."""
    return picture.crop(crop_box(picture.size, size)) if isinstance(size, CropSize) else picture


def crop_corner(picture: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Left and top of the part of a picture of (width, height) that `seen` returns."""
    return crop_box(picture, size)[:2] if isinstance(size, CropSize) else (0, 0)
