"""Manifests: drawing the images of a run, and the CSV file that lists them."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from ltx.config import UserError
from ltx.datasets.base import ImageSet

FIELDS = ("index", "image", "label")


def read_names(path: Path) -> list[str]:
    """Image names of a manifest.

    Raises:
        UserError: the file is missing or has no column `image`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such manifest: {path}")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "image" not in (reader.fieldnames or ()):
                raise UserError(f"{path} is no manifest: it has no column 'image'")
            return [row["image"] for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no manifest: {error}") from error


def from_manifest(path: Path, images: ImageSet) -> list[int]:
    """Positions in `images` of the names that a manifest lists.

    Raises:
        UserError: a name is not in the set.
    """
    positions = {name: index for index, name in enumerate(images.names)}
    chosen = []
    for name in read_names(path):
        if name not in positions:
            raise UserError(f"{path} lists {name}, which is not among the {len(images)} images of this set")
        chosen.append(positions[name])
    return chosen


def draw_per_class(labels: list[int], n_train: int, n_val: int, seed: int) -> tuple[list[int], list[int]]:
    """Draws disjoint positions, `n_train` and `n_val` of every class.

    Raises:
        UserError: a class has too few images, or there are no labels.
    """
    members = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    if min(members, default=-1) < 0:
        raise UserError(
            "drawing images per class needs labels; use --train-images N and --val-images N instead"
        )
    rng, train, val = np.random.default_rng(seed), [], []
    for label in sorted(members):
        if len(members[label]) < n_train + n_val:
            raise UserError(
                f"class {label} has {len(members[label])} images, but --train-n-label-sample {n_train} and "
                f"--val-n-label-sample {n_val} ask for {n_train + n_val}; use --train-images and --val-images"
            )
        order = rng.permutation(members[label]).tolist()
        train += order[:n_train]
        val += order[n_train : n_train + n_val]
    return train, val


def draw_total(n_images: int, n_train: int, n_val: int, seed: int) -> tuple[list[int], list[int]]:
    """Draws disjoint positions, `n_train` and `n_val` in all.

    Raises:
        UserError: there are too few images.
    """
    if n_train + n_val > n_images:
        raise UserError(
            f"--train-images {n_train} and --val-images {n_val} ask for more than the {n_images} there are"
        )
    order = np.random.default_rng(seed).permutation(n_images).tolist()
    return order[:n_train], order[n_train : n_train + n_val]
