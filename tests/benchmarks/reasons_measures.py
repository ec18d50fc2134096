"""Measures of `reasons.py`: what a map's shape says of its class, and how much two maps agree."""

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from ltx.config import UserError
from ltx.main.report_page.measures import weighted_mean
from ltx.main.report_page.statistics import draw_counts, interval

GREY, WHITE = 0.5, 1.0
_RESAMPLES, _EPOCHS, _BATCH, _RATE = 2000, 30, 64, 2e-3


def top(maps: np.ndarray, share: float) -> np.ndarray:
    """The most salient share of the pixels, bool (N, H, W), the same number in every map.

    Of equal pixels the first go first, as in the perturbation metrics.
    """
    flat = torch.from_numpy(maps).flatten(1)
    count = max(1, round(share * flat.shape[1]))
    order = torch.sort(-flat, dim=1, stable=True).indices[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).view(maps.shape).numpy()


def shapes(maps: np.ndarray, share: float, grid: int) -> np.ndarray:
    """The top share of each map, white on grey, averaged to (N, grid, grid): nothing of the image is left."""
    pictures = np.where(top(maps, share), np.float32(WHITE), np.float32(GREY))
    return F.adaptive_avg_pool2d(torch.from_numpy(pictures)[:, None], grid)[:, 0].numpy()


def enough(classes: np.ndarray, folds: int) -> np.ndarray:
    """Images (N,) of classes with at least so many images as there are folds.

    Raises:
        UserError: fewer than two such classes, so that no classifier can be trained and tested.
    """
    names, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
    kept = counts >= folds
    if kept.sum() < 2:
        raise UserError(
            f"what a shape says of its class cannot be measured here: of the {len(names)} classes of "
            f"{len(classes)} images, {kept.sum()} have the {folds} images that {folds} folds need; it needs "
            "a set with many images per class, such as digits"
        )
    return kept[place]


def read_by_logistic(train: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Predicted classes of pictures (N, g, g) by logistic regression on their pixels."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500, random_state=seed))
    return model.fit(train.reshape(len(train), -1), labels).predict(test.reshape(len(test), -1))


def read_by_cnn(train: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Predicted classes of pictures (N, g, g) by a small convolutional network, blind to small shifts."""
    names, targets = np.unique(labels, return_inverse=True)
    mean, std = train.mean(), train.std() + 1e-6
    x, unseen = (torch.from_numpy((part - mean) / std)[:, None] for part in (train, test))
    y = torch.from_numpy(targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(256, len(names)),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
        for _ in range(_EPOCHS):
            for rows in torch.randperm(len(x)).split(_BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
    with torch.no_grad():
        return names[model(unseen).argmax(1).numpy()]


READERS = {"logistic": read_by_logistic, "cnn": read_by_cnn}


def cross_validated(reader, pictures: np.ndarray, classes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Which pictures (N, g, g) a classifier that never saw them reads rightly, float (N,)."""
    right = np.zeros(len(classes))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(pictures, classes)
    for train, test in splits:
        right[test] = reader(pictures[train], classes[train], pictures[test], seed) == classes[test]
    return right


def spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rank correlation of maps (N, H, W), image by image, (N,); 0 where a map is constant."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one, other)]
    centred = [r - r.mean(axis=1, keepdims=True) for r in ranks]
    norms = np.prod([np.linalg.norm(r, axis=1) for r in centred], axis=0)
    products = (centred[0] * centred[1]).sum(axis=1)
    return np.divide(products, norms, out=np.zeros(len(products)), where=norms > 0)


def overlap(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Intersection over union of the most salient share of the pixels, image by image, (N,)."""
    a, b = top(one, share), top(other, share)
    return (a & b).sum(axis=(1, 2)) / (a | b).sum(axis=(1, 2))


def agreement(one: np.ndarray, other: np.ndarray, share: float) -> dict[str, np.ndarray]:
    """How much two methods' maps (N, H, W) of the same images agree, by measure, (N,) each.

    `*_other_image` holds each map against the second method's map of the next image: what agrees there is
    habit (the middle of the picture, say), not what is seen.
    """
    found = {"spearman": spearman(one, other), "iou": overlap(one, other, share)}
    if len(one) > 1:
        shifted = np.roll(other, -1, axis=0)
        found |= {
            "spearman_other_image": spearman(one, shifted),
            "iou_other_image": overlap(one, shifted, share),
        }
    return found


def with_interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean of values (N,), and its 95% bootstrap interval over the images, None for one image."""
    if len(values) < 2:
        return float(values.mean()), None, None
    return float(values.mean()), *interval(weighted_mean(values, draw_counts(len(values), _RESAMPLES, 42)))
