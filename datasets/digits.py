"""Digits on photographs: the embedded default, made on the fly, the same for the same index.

One of scikit-learn's 1,797 real handwritten digits (Alpaydin & Kaynak, UCI Optdigits), enlarged and bright,
on a darkened crop of one of the two photographs that scikit-learn ships. Training crops come from the left
halves of the photographs and testing crops from the right halves; digits are split by digit image.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ltx.config import UserError
from ltx.datasets.base import NO_LABEL, ImageSet, mask_to_tensor, to_tensor

SIDE = 64
N_TRAIN = 1400
N_DIGITS = 1797
N_FIT = 1200
MIXED = 0  # one digit or two, see `DigitsOnPhotos`
SPLITS = ("train", "test", "fit", "tune")
CLASS_NAMES = tuple(str(digit) for digit in range(10))
_SPLIT_SEED = 0


class DigitsOnPhotos(ImageSet):
    """Digits on photographs, 64x64 before resizing, with exact object masks.

    Image i shows digit i modulo the split's size; further rounds show the same digits on other backgrounds.

    Args:
        split: "train" (1,400 digits) or "test" (397 digits); the training digits are further split into "fit"
            (1,200), which explainers are trained on, and "tune" (200), on which choices are made.
        n_images: length of the set; default once through the split.
        image_size: (H, W).
        draw: number that makes another draw of backgrounds, sizes and places (an epoch, say).
        augment: also rotate (18 degrees), shear (0.25) and stretch (0.15), for training the explainee.
        n_digits: 1, or 2 for two digits of different classes side by side. The label is the left one's,
            `second_label` the right one's, and `mask` / `second_mask` theirs. `MIXED`: one in the even rounds
            through the split, two in the odd ones; of one, `second_label` is -1 and `second_mask` 0.
    """

    has_masks = True

    def __init__(
        self,
        split: str = "test",
        n_images: int | None = None,
        image_size: tuple[int, int] = (SIDE, SIDE),
        draw: int = 0,
        augment: bool = False,
        n_digits: int = 1,
    ):
        super().__init__(image_size)
        if split not in SPLITS:
            raise UserError(f"digits have no split '{split}'; choose from {', '.join(SPLITS)}")
        self.split, self.draw, self.augment, self.n_digits = split, draw, augment, n_digits
        self._digits = _digit_ids(split)
        n_images = len(self._digits) if n_images is None else n_images
        self.names = [str(index) for index in range(n_images)]
        labels = _digit_data()[1]
        self.labels = [int(labels[self._digits[i % len(self._digits)]]) for i in range(n_images)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        n_digits = self.n_digits or 1 + index // len(self._digits) % 2
        rng = np.random.default_rng([_SPLIT_SEED, SPLITS.index(self.split), n_digits, self.draw, index])
        digits, labels = _digit_data()
        canvas = _background(rng, self.split)
        first = self._digits[index % len(self._digits)]
        chosen = [first]
        if n_digits == 2:
            others = self._digits[labels[self._digits] != labels[first]]
            chosen.append(rng.choice(others))
        masks = []
        for place, digit in enumerate(chosen):
            alpha = _placed(digits[digit], rng, self.augment, place, len(chosen))
            brightness = rng.uniform(200, 255, size=3)
            canvas = canvas * (1 - alpha[..., None]) + brightness * alpha[..., None]
            masks.append(mask_to_tensor(alpha > 0.5, self.image_size))
        image = Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
        sample = {"image": to_tensor(image, self.image_size), "label": self.labels[index], "index": index}
        sample["mask"] = masks[0]
        if n_digits == 2:
            sample |= {"second_label": int(labels[chosen[1]]), "second_mask": masks[1]}
        elif self.n_digits == MIXED:
            sample |= {"second_label": NO_LABEL, "second_mask": masks[0].new_zeros(masks[0].shape)}
        return sample

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "digits",
            "split": self.split,
            "n_images": len(self),
            "draw": self.draw,
            "augment": self.augment,
            "n_digits": self.n_digits,
        }


@cache
def _digit_data() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # here: importing scikit-learn takes half a second

    digits = load_digits()
    return digits.images.astype(np.float32) / 16, digits.target


@cache
def _digit_ids(split: str) -> np.ndarray:
    order = np.random.default_rng(_SPLIT_SEED).permutation(N_DIGITS)
    bounds = {"train": (0, N_TRAIN), "test": (N_TRAIN, None), "fit": (0, N_FIT), "tune": (N_FIT, N_TRAIN)}
    return order[slice(*bounds[split])]


@cache
def _photographs() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_sample_images

    return tuple(load_sample_images().images)


def _background(rng: np.random.Generator, split: str) -> np.ndarray:
    """A darkened crop, float64 (64, 64, 3) in [0, 255], from the half of a photograph that the split owns."""
    photo = _photographs()[rng.integers(2)]
    middle = photo.shape[1] // 2
    half = photo[:, middle:] if split == "test" else photo[:, :middle]
    side = int(rng.integers(SIDE, 193))
    top, left = rng.integers(half.shape[0] - side + 1), rng.integers(half.shape[1] - side + 1)
    crop = Image.fromarray(np.ascontiguousarray(half[top : top + side, left : left + side]))
    pixels = np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float64)
    return pixels * rng.uniform(0.3, 0.6)


def _placed(
    digit: np.ndarray, rng: np.random.Generator, augment: bool, place: int, n_places: int
) -> np.ndarray:
    """The digit enlarged and placed: opacity (64, 64) in [0, 1]."""
    size = rng.uniform(24, 36) if n_places == 1 else rng.uniform(22, 30)
    angle, shear, aspect = 0.0, 0.0, 1.0
    if augment:
        angle = math.radians(rng.uniform(-18, 18))
        shear, aspect = rng.uniform(-0.25, 0.25), 1 + rng.uniform(-0.15, 0.15)
    width = SIDE / n_places
    x = width * place + rng.uniform(size / 2, max(width - size / 2, size / 2 + 1e-6))
    y = rng.uniform(size / 2, SIDE - size / 2)
    scale = size / digit.shape[0]
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = rotation @ np.array([[aspect, shear], [0.0, 1.0]]) * scale
    inverse = np.linalg.inv(forward)
    offset = digit.shape[0] / 2 - inverse @ np.array([x, y])
    matrix = (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
    padded = Image.fromarray(np.pad(digit, 2))  # a dark rim, so that interpolation fades out
    matrix = (matrix[0], matrix[1], matrix[2] + 2, matrix[3], matrix[4], matrix[5] + 2)
    placed = padded.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(placed, dtype=np.float64).clip(0, 1)
