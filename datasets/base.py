"""Base class of the image sets: a torch dataset of dictionaries with known names and labels."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from ltx.config import UserError

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
        self.image_size = (height, width)
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
    """The input protocol: RGB, resized to (H, W) directly (bilinear, antialiased), float32 in [0, 1]."""
    resized = F.resize(
        image.convert("RGB"), list(size), interpolation=F.InterpolationMode.BILINEAR, antialias=True
    )
    return F.to_dtype(F.pil_to_tensor(resized), torch.float32, scale=True)


def mask_to_tensor(mask: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Label map (H0, W0) to int64 (H, W), nearest neighbour; keeps -1."""
    image = Image.fromarray(np.asarray(mask).astype(np.int16).astype(np.int32), mode="I")
    resized = F.resize(image, list(size), interpolation=F.InterpolationMode.NEAREST)
    return torch.from_numpy(np.array(resized, dtype=np.int64))
