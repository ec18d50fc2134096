"""Performance information curves behind AIC and SIC (Kapishnikov et al. 2019, PAIR's `saliency` package).

Of each image all but 1% of the pixels (drawn by the image's name) and its corners are removed and
interpolated; then the most salient 0.5% ... 75% are put back. Each step's information is the size of its
lossless WebP file, its performance the explainee's probability of the class (SIC) or whether the class is
on top (AIC); both are scaled between those of the blurred and of the original image. Performance only grows
along a curve.

The numbers equal those of `saliency` 0.2.1 for the same 1% of pixels (that package itself calls
`numpy.trapz`, which NumPy 2.4 no longer has). AIC and SIC share all steps. Triangulation takes half of the
time and grows with the share of the pixels, compression most of the rest, so steps that cannot move a curve
are not made: those of an image that does not count, and those after a curve is at its top.
"""

import io
import itertools
from concurrent.futures import Executor, ThreadPoolExecutor
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
# Steps are made in groups, of all images at once. A curve may end `_AT_TOP` below its top, and a file be
# smaller by `_SHRINKS` (of the range) than that of a step before.
_GROUPS = (0, 9, 10, 11, 12, 13)
_AT_TOP, _SHRINKS = 1e-3, 0.1


@dataclass(frozen=True)
class Responses:
    """Information in each image's steps, and the explainee's response to them.

    Attributes:
        information: (B, 15) bytes of the blurred image, the 13 steps, the original.
        probability: (B, 15) of the class.
        correct: (B, 15) 1.0 where the class is on top.

    A step that was not made has the values of the original.
    """

    information: np.ndarray
    probability: np.ndarray
    correct: np.ndarray

    def performance(self, accuracy: bool) -> np.ndarray:
        """Return the performance (B, 15) of AIC, else of SIC."""
        return self.correct if accuracy else self.probability


def performance_curves(view: MapView) -> Responses:
    """Return the responses to all images of a view."""
    batch = view.batch
    pixels = _pixels(batch)
    seeds, low, high = batch.once("information", lambda: _ends(batch, pixels))
    found = Responses(*np.concatenate([low, high.repeat(len(LEVELS) + 1, 2)], axis=2))
    saliency = view.saliency.cpu().numpy()
    with ThreadPoolExecutor() as pool:  # triangulation and compression release Python's lock
        for first, last in itertools.pairwise(_GROUPS):
            todo = _unfinished(found, first)
            made = [(i, level) for i in todo for level in range(first, last)]
            kept = [(saliency[i] >= np.quantile(saliency[i], 1 - LEVELS[k])) | seeds[i] for i, k in made]
            steps = list(pool.map(_blurred, [pixels[i] for i, _ in made], kept))
            values = _responses(batch, [i for i, _ in made], steps, pool)
            rows, columns = np.array(made, dtype=int).reshape(-1, 2).T
            for name, value in zip(("information", "probability", "correct"), values, strict=True):
                getattr(found, name)[rows, columns + 1] = value
    return found


def _unfinished(found: Responses, n_made: int) -> list[int]:
    """Return the images whose curves can still change after their first steps.

    A curve is at its top once its performance is and the file has left all those behind that came before the
    top: from one step to the next it may shrink by a tenth of the range, where the encoder changes its ways.
    """
    unfinished = np.zeros(len(found.information), bool)
    for accuracy in (False, True):
        both, counts = _scaled(found, accuracy)
        for i in np.flatnonzero(counts):
            size, y = both[i, :, :n_made]
            below = size[y < 1 - _AT_TOP].max(initial=0.0)
            at_top = n_made > 0 and y[-1] >= 1 - _AT_TOP and size[-1] > below + _SHRINKS
            unfinished[i] |= not at_top
    return np.flatnonzero(unfinished).tolist()


def _scaled(responses: Responses, accuracy: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return information and performance (B, 2, 13) between their ends, and which images count (B,)."""
    both = np.stack([responses.information, responses.performance(accuracy)], axis=1)
    low, high = both[..., :1], both[..., -1:]
    counts = (high > low).all(axis=(1, 2)) & (both[:, 1, -1] >= LOWEST_PERFORMANCE)
    span = np.where(counts[:, None, None], high - low, 1)
    both = ((both[..., 1:-1] - low) / span).clip(0, 1)
    both[:, 1] = np.maximum.accumulate(both[:, 1], axis=1)
    return both, counts


def points(responses: Responses, accuracy: bool) -> Tensor:
    """Return scaled information and performance (B, 2 * 13) of each image; NaN if it does not count."""
    both, counts = _scaled(responses, accuracy)
    both[~counts] = np.nan
    return torch.from_numpy(both.reshape(len(both), -1))


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


def _pixels(batch: ImageBatch) -> np.ndarray:
    """Return the images as bytes, (B, H, W, 3)."""
    return (batch.images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _ends(batch: ImageBatch, pixels: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return each image's seed pixels, and the responses (3, B, 1) to the blurred and to the original."""
    names = batch.names or [str(i) for i in range(len(pixels))]
    seeds = [seed_mask(image.shape[:2], name) for image, name in zip(pixels, names, strict=True)]
    with ThreadPoolExecutor() as pool:
        blurred = list(pool.map(_blurred, pixels, seeds))
        both = _responses(batch, [*range(len(pixels))] * 2, [*blurred, *pixels], pool)
    return seeds, *both.reshape(3, 2, -1, 1).swapaxes(0, 1)


def _responses(batch: ImageBatch, which: list[int], steps: list[np.ndarray], pool: Executor) -> np.ndarray:
    """Return bytes, probability and correctness (3, N) of versions (H, W, 3) of some images."""
    sizes, said = pool.map(_webp_bytes, steps), []
    for start in range(0, len(steps), batch.batch_size):
        some = torch.from_numpy(np.stack(steps[start : start + batch.batch_size])).to(batch.images.device)
        classes = batch.classes[which[start : start + batch.batch_size]]
        read = read_class(batch.explainee, some.permute(0, 3, 1, 2).float() / 255, classes)
        said.append(torch.stack(read).double().cpu().numpy())
    return np.concatenate([np.array([list(sizes)], float), np.concatenate(said or [np.empty((2, 0))], 1)])


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
