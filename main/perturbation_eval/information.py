"""Performance information curves behind AIC and SIC (Kapishnikov et al. 2019, PAIR's `saliency` package).

Of each image all but 1% of the pixels (drawn by the image's name) and its corners are removed and
interpolated; then the most salient 0.5% ... 75% are put back. Each step's information is the size of its
lossless WebP file, its performance the explainee's probability of the class (SIC) or whether the class is
on top (AIC); both are scaled between those of the blurred and of the original image. Performance only grows
along a curve.

The numbers equal those of `saliency` 0.2.1 for the same 1% of pixels (that package itself calls
`numpy.trapz`, which NumPy 2.4 no longer has). All steps go through the explainee as one batch, for AIC and
SIC together.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.interpolate import LinearNDInterpolator
from torch import Tensor

from ltx.main.common.names import seed_of
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.models.explainee import read_class

# Share of the most salient pixels at each step, as in the package's example.
LEVELS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
SEED_SHARE, LOWEST_PERFORMANCE = 0.01, 0.8
N_POINTS = 1000


@dataclass(frozen=True)
class Responses:
    """Information in each image's steps, and the explainee's response to them.

    Attributes:
        information: (B, 15) bytes of the blurred image, the 13 steps, the original.
        probability: (B, 15) of the class.
        correct: (B, 15) 1.0 where the class is on top.
    """

    information: np.ndarray
    probability: np.ndarray
    correct: np.ndarray


def performance_curves(view: MapView) -> Responses:
    """Return the responses to all images of a view."""
    batch = view.batch
    pixels = (batch.images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    names = batch.names or [str(i) for i in range(len(pixels))]
    ends = batch.once(
        "information", lambda: [_ends(batch, i, pixels[i], name) for i, name in enumerate(names)]
    )
    responses = []
    for i, (image, (seeds, low, high)) in enumerate(zip(pixels, ends, strict=True)):
        saliency = view.saliency[i].cpu().numpy()
        kept = [(saliency >= np.quantile(saliency, 1 - level)) | seeds for level in LEVELS]
        # Triangulation and compression release Python's lock, so threads share them.
        with ThreadPoolExecutor() as pool:
            steps = list(pool.map(_blurred, [image] * len(kept), kept))
        responses.append(np.concatenate([low, _responses(batch, i, steps), high], axis=1))
    return Responses(*np.stack(responses, axis=1))


def points(responses: Responses, accuracy: bool) -> Tensor:
    """Return scaled information and performance (B, 2 * 13) of each image; NaN if it does not count."""
    performance = responses.correct if accuracy else responses.probability
    found = np.full((len(performance), 2, len(LEVELS)), np.nan)
    for i, (size, y) in enumerate(zip(responses.information, performance, strict=True)):
        if y[-1] < LOWEST_PERFORMANCE or size[0] >= size[-1] or y[0] >= y[-1]:
            continue
        for axis, values in enumerate((size, y)):
            found[i, axis] = ((values[1:-1] - values[0]) / (values[-1] - values[0])).clip(0, 1)
        found[i, 1] = np.maximum.accumulate(found[i, 1])
    return torch.from_numpy(found.reshape(len(found), -1))


def curve_of(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the curve at 1,001 places of information through points (2 * 13,), (0, 0) and (1, 1)."""
    size, y = point.reshape(2, -1)
    size, y = np.append(size, [0.0, 1.0]), np.append(y, [0.0, 1.0])
    order = np.argsort(size, kind="stable")
    x = np.linspace(0, 1, N_POINTS + 1)
    found = np.interp(x, size[order], y[order])
    found[-1] = 1.0
    return x, found


def point_auc(point: np.ndarray) -> float:
    """Return the area under `curve_of`, in [0, 1]; NaN if the image does not count."""
    if not np.isfinite(point).all():
        return float("nan")
    x, y = curve_of(point)
    return float(np.trapezoid(y, x))


def median_curve(details: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median over images of their curves, from points (N, 2 * 13)."""
    curves = [curve_of(point) for point in details]
    return curves[0][0], np.median([y for _, y in curves], axis=0)


def seed_mask(size: tuple[int, int], name: str) -> np.ndarray:
    """Return the 1% of pixels (H, W) that even the most blurred image keeps, drawn by the image's name."""
    rng = np.random.default_rng(seed_of(name))
    n_pixels = size[0] * size[1]
    mask = np.zeros(n_pixels, bool)
    mask[rng.choice(n_pixels, int(n_pixels * SEED_SHARE), replace=False)] = True
    return mask.reshape(size)


def _ends(
    batch: ImageBatch, i: int, image: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the seed pixels, and the responses to the blurred and to the original image."""
    seeds = seed_mask(image.shape[:2], name)
    both = _responses(batch, i, [_blurred(image, seeds), image])
    return seeds, both[:, :1], both[:, 1:]


def _responses(batch: ImageBatch, i: int, steps: list[np.ndarray]) -> np.ndarray:
    """Return bytes, probability and correctness (3, steps) of versions (H, W, 3) of image i."""
    pixels = torch.from_numpy(np.stack(steps)).to(batch.images.device).permute(0, 3, 1, 2).float() / 255
    said = [
        read_class(batch.explainee, some, batch.classes[i].expand(len(some)))
        for some in pixels.split(batch.batch_size)
    ]
    probability, correct = (torch.cat(values).double().cpu().numpy() for values in zip(*said, strict=True))
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_webp_bytes, steps))
    return np.stack([sizes, probability, correct])


def _webp_bytes(image: np.ndarray) -> int:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="webp", lossless=True, quality=100)
    return buffer.tell()


def _blurred(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the image with all but the kept pixels (and the corners) interpolated linearly between those."""
    kept = kept.copy()
    kept[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if kept.all():
        return image
    between = LinearNDInterpolator(np.argwhere(kept), image[kept].astype(np.float64), fill_value=np.nan)
    # In float32 as the package does it, where rounding halves matters.
    found = image.astype(np.float32)
    missing = np.argwhere(~kept)
    values = between(missing)
    found[~kept] = np.where(np.isnan(values), image.mean(axis=(0, 1)), values)
    return found.round().astype(np.uint8)
