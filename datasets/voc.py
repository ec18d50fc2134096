"""PASCAL VOC 2012 segmentation (Everingham et al.), through torchvision: any object is foreground."""

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import VOCSegmentation

from ltx.config import UserError
from ltx.datasets.base import VOID
from ltx.datasets.segmentation import SegmentationSet, check_sizes, damaged, first_folder, one_line

SOURCE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (VOCtrainval_11-May-2012.tar)"
TREE = "VOCdevkit/VOC2012"
SPLITS = ("train", "trainval", "val")
_DAMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class VocSegmentation(SegmentationSet):
    """The images of a VOC2012 split that have class masks; names are VOC's own (2007_000033).

    Masks are 0 on background, 1 on any object and 255 on the void rim, which belongs to neither.

    Args:
        root: folder that holds `voc/VOCdevkit/VOC2012`, or `VOCdevkit/VOC2012`.
        image_size: (H, W).
        labels_path: CSV `img_name,label`; default `labels.csv` in VOC2012, where there is one.
        split: "val" (default), "train" or "trainval".

    Raises:
        UserError: no such tree or split, a file missing or damaged, or a mask that does not fit its image.
    """

    kind = "voc"
    origin = SOURCE
    has_void = True

    def __init__(
        self,
        root: Path,
        image_size: tuple[int, int],
        labels_path: Path | None = None,
        split: str | None = None,
    ):
        super().__init__(image_size, root, split)
        split = split or "val"
        if split not in SPLITS:
            raise UserError(f"VOC2012 has no segmentation split '{split}'; choose from {', '.join(SPLITS)}")
        listed = f"{TREE}/ImageSets/Segmentation/{split}.txt"
        folder = first_folder([Path(root) / "voc", Path(root)], listed, "VOC2012", SOURCE)
        try:
            self._voc = VOCSegmentation(folder, year="2012", image_set=split)
        except _DAMAGE as error:
            raise damaged(f"cannot read {folder / listed}: {one_line(error)}", SOURCE) from error
        for paths in (self._voc.images, self._voc.targets):  # torchvision takes a blank line for a name
            paths[:] = [path for path in paths if not Path(path).name.startswith(".")]
        self.names = [Path(path).stem for path in self._voc.images]
        self._position = {name: index for index, name in enumerate(self.names)}
        if not self.names:
            raise damaged(f"{folder / listed} lists no images", SOURCE)
        for name, image, mask in zip(self.names, self._voc.images, self._voc.masks, strict=True):
            sizes = _size(image, folder / listed), _size(mask, folder / listed)
            check_sizes(f"{name} of {folder / TREE}", *sizes, SOURCE)
        self._set_labels(labels_path, folder / TREE / "labels.csv", self._position)

    def _read(self, name: str) -> tuple[Image.Image, np.ndarray]:
        index = self._position[name]
        try:
            image, mask = self._voc[index]
            labels = np.asarray(mask)
        except _DAMAGE as error:
            pair = f"{self._voc.images[index]} with {self._voc.masks[index]}"
            raise damaged(f"cannot read {pair}: {one_line(error)}", SOURCE) from error
        if labels.ndim != 2:
            wrong = f"{self._voc.masks[index]} is no mask: wanted a palette PNG, got mode {mask.mode}"
            raise damaged(wrong, SOURCE)
        return image, np.where(labels == VOID, VOID, labels != 0)


def _size(path: str, listed: Path) -> tuple[int, int]:
    """(H, W) of a picture, from its header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError as error:
        raise damaged(f"{listed} lists {path}, which does not exist", SOURCE) from error
    except _DAMAGE as error:
        raise damaged(f"cannot read {path}: {one_line(error)}", SOURCE) from error
