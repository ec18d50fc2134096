"""PASCAL VOC 2012 segmentation (Everingham et al.), through torchvision: any object is foreground."""

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import VOCSegmentation

from config import UserError
from datasets.base import VOID
from datasets.segmentation import SegmentationSet, check_sizes, first_folder

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
        self._voc = VOCSegmentation(folder, year="2012", image_set=split)
        self.names = [Path(path).stem for path in self._voc.images]
        self._position = {name: index for index, name in enumerate(self.names)}
        if not self.names:
            raise UserError(f"{folder / listed} lists no images; get it again from {SOURCE}")
        for name, image, mask in zip(self.names, self._voc.images, self._voc.masks, strict=True):
            check_sizes(name, _size(image, folder / listed), _size(mask, folder / listed))
        self._set_labels(labels_path, folder / TREE / "labels.csv", self._position)

    def _read(self, name: str) -> tuple[Image.Image, np.ndarray]:
        index = self._position[name]
        try:
            image, mask = self._voc[index]
            labels = np.asarray(mask)
        except _DAMAGE as error:
            raise UserError(
                f"cannot read {self._voc.images[index]} with {self._voc.masks[index]}: {error}"
            ) from error
        if labels.ndim != 2:
            raise UserError(
                f"{self._voc.masks[index]} is no mask: wanted a palette PNG, got mode {mask.mode}"
            )
        return image, np.where(labels == VOID, VOID, labels != 0)


def _size(path: str, listed: Path) -> tuple[int, int]:
    """(H, W) of a picture, from its header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError as error:
        raise UserError(
            f"{listed} lists {path}, which does not exist; the set comes from {SOURCE}"
        ) from error
    except _DAMAGE as error:
        raise UserError(f"cannot read {path}: {error}") from error
