"""Picture sheets of segmentation: the best, the median and the worst images of a variant."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltx.datasets.base import ImageSet
from ltx.main.common.figures import write_sheet
from ltx.main.runs.mask_files import read_unit, unit_holding
from ltx.main.segmentation_eval.metrics import Sample

COLUMNS = ("image", "ground truth", "saliency map", "thresholded map")
_EACH = 3


def write_sheet_of(
    folder: Path,
    run_folder: Path,
    variant: str,
    images: ImageSet,
    chosen: Sequence[int],
    index: np.ndarray,
    f1: np.ndarray,
) -> None:
    """Write `<variant>.png`: image, ground truth, map and thresholded map of a few images.

    Args:
        folder: results folder.
        run_folder: the run, whose mask files contain the maps.
        variant: name of the maps.
        images: the image set.
        chosen: position in the set of each image of the run.
        index: (N,) positions in the run of the images that were scored.
        f1: (N,) their F1 in percent, which ranks them.
    """
    rows, captions = [], []
    for place, i in ranked(f1):
        sample = images[chosen[index[i]]]
        unit = read_unit(unit_holding(run_folder, int(index[i])))
        row = int(np.flatnonzero(unit.index == index[i])[0])
        saliency = unit.maps(variant, images.image_size, slice(row, row + 1))[0].numpy()
        found = Sample(sample["mask"].numpy(), saliency)
        truth = _grey(np.select([found.labels == 1, found.labels == 0], [1.0, 0.0], 0.5))
        picture = sample["image"].permute(1, 2, 0).numpy()
        rows.append([picture, truth, found.scaled, _grey(found.foreground.astype(float))])
        captions.append(f"{place}: F1 {f1[i]:.1f}\n{images.names[chosen[index[i]]]}")
    write_sheet(folder / f"{variant}.png", rows, COLUMNS, captions)


def ranked(f1: np.ndarray) -> list[tuple[str, int]]:
    """Return up to three best, median and worst positions of (N,) figures, each once, ties in order."""
    order = np.argsort(-f1, kind="stable").tolist()
    each = max(1, min(_EACH, len(order) // 3))
    middle = (len(order) - each) // 2
    places = {}
    for place, some in (
        ("best", order[:each]),
        ("worst", order[-each:]),
        ("median", order[middle : middle + each]),
    ):
        for i in some:
            places.setdefault(i, place)
    return [(places[i], i) for i in order if i in places]


def _grey(values: np.ndarray) -> np.ndarray:
    """Return values (H, W) in [0, 1] as a grey picture (H, W, 3)."""
    return np.repeat(values[..., None], 3, axis=2)
