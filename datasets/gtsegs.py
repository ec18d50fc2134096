"""ImageNet-Segmentation: `gtsegs_ijcv.mat` (Guillaumin, Küttel & Ferrari, IJCV 2014), a MATLAB v7.3 file.

Such a file is HDF5. `/value/img` and `/value/gt` hold one reference per image; an image is uint8 (3, W, H),
and its labels lie one reference deeper, (W, H), 0 for background.
"""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from ltx.config import UserError
from ltx.datasets.base import IGNORED
from ltx.datasets.segmentation import SegmentationSet, check_sizes, damaged, one_line

FILE = "gtsegs_ijcv.mat"
SOURCE = "http://calvin-vision.net/bigstuff/proj-imagenet/data/gtsegs_ijcv.mat"
_KEYS = ("value/img", "value/gt")
_DAMAGE = (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError)


class ImagenetSegmentation(SegmentationSet):
    """The images of a `gtsegs_ijcv.mat`, by index; pixels are read when asked for.

    The file is opened once per process. Its structure (keys, sizes of all images and masks) is checked here.

    Args:
        root: folder of the file, or the file.
        image_size: (H, W).
        labels_path: CSV `index,label`; default `labels.csv` beside the file, where there is one.
        split: only these images, by the CSV's column `split`; where it has none, the even indices are "tune"
            and the odd ones "report".

    Raises:
        UserError: no such file, MATLAB 5, truncated, without the keys, or a mask that does not fit its image.
    """

    kind = "imagenet_segmentation"
    origin = SOURCE
    label_key = "index"

    def __init__(
        self,
        root: Path,
        image_size: tuple[int, int],
        labels_path: Path | None = None,
        split: str | None = None,
    ):
        super().__init__(image_size, root, split)
        self.path = Path(root) if Path(root).is_file() else Path(root) / FILE
        self._file: h5py.File | None = None
        self._owner: int | None = None
        everything = [str(index) for index in range(_check(self.path))]
        self.names = everything
        splits = self._set_labels(labels_path, self.path.parent / "labels.csv", set(everything))
        if split is not None:
            splits = splits or {name: index_split(int(name)) for name in everything}
            if split not in splits.values():
                raise UserError(
                    f"--split {split}: {self.path} has only {', '.join(sorted(set(splits.values())))}"
                )
            kept = [i for i, name in enumerate(everything) if splits.get(name) == split]
            self.names, self.labels = [everything[i] for i in kept], [self.labels[i] for i in kept]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_owner": None}

    def _read(self, name: str) -> tuple[Image.Image, np.ndarray]:
        try:
            if self._owner != os.getpid():
                self._file, self._owner = h5py.File(self.path, "r"), os.getpid()
            image, mask = _entry(self._file, int(name))
            pixels, labels = np.asarray(image[()]).T, np.asarray(mask[()]).T
            return Image.fromarray(pixels).convert("RGB"), np.where(labels == IGNORED, IGNORED, labels != 0)
        except _DAMAGE as error:
            raise damaged(f"cannot read image {name} of {self.path}: {one_line(error)}", SOURCE) from error


def index_split(index: int) -> str:
    """Split of an image without one: even indices are for choices (tune), odd ones for figures (report)."""
    return ("tune", "report")[index % 2]


def _check(path: Path) -> int:
    """Number of images of a file that is as it should be."""
    if not path.is_file():
        raise UserError(
            f"ImageNet-Segmentation not found: looked for {path}; get it from {SOURCE} "
            "and pass its folder with --segmentation-root"
        )
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in _KEYS if not isinstance(file.get(key), h5py.Dataset)]
            if missing:
                value = file.get("value")
                inner = value if isinstance(value, h5py.Group) else ()
                found = ", ".join([*file, *(f"value/{key}" for key in inner)]) or "nothing"
                raise UserError(
                    f"{path} is not {FILE}: it has no {' and no '.join(missing)}, only {found}; "
                    f"get it from {SOURCE}"
                )
            n_images, n_masks = (file[key].size for key in _KEYS)
            if n_images != n_masks or not n_images:
                raise damaged(f"{path} holds {n_images} images and {n_masks} masks, wanted as many", SOURCE)
            for index in range(n_images):
                image, mask = _entry(file, index)
                check_sizes(f"{index} of {path}", image.shape[-1:-3:-1], mask.shape[::-1], SOURCE)
            return n_images
    except _DAMAGE as error:
        raise UserError(f"cannot read {path}: {_why(path, error)}") from error


def _entry(file: h5py.File, index: int) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Image and mask of an index, not yet read."""
    image, mask = (file[np.ravel(file[key])[index]] for key in _KEYS)
    if mask.dtype == h5py.ref_dtype:
        mask = file[np.ravel(mask[()])[0]]
    return image, mask


def _why(path: Path, error: Exception) -> str:
    with open(path, "rb") as file:
        head = file.read(128)
    if head.startswith(b"MATLAB 5"):
        return f"it is a MATLAB 5 file, wanted v7.3 (HDF5); get the original from {SOURCE}"
    if not head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        return f"it is no MATLAB v7.3 (HDF5) file; get it from {SOURCE}"
    return f"{one_line(error)}; is the file whole? It comes from {SOURCE}"
