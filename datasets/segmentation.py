"""Base class of the published segmentation sets: images and object masks, checked against each other."""

from abc import abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ltx.config import UserError
from ltx.datasets.base import NO_LABEL, BadImageError, ImageSet, mask_to_tensor, to_tensor
from ltx.datasets.labels import class_index, read_label_rows


class SegmentationSet(ImageSet):
    """Images with object masks; a subclass fills `names` and reads one image with its mask.

    Labels come from `labels_path`, else from a `labels.csv` beside the set, else there are none.

    Args:
        image_size: (H, W).
        root: where the set was looked for, for `describe`.
        split: as asked for, None for the default.

    Attributes:
        kind: name of the set in `describe`.
        origin: where the set can be got.
    """

    has_masks = True
    kind: str
    origin: str
    label_key = "img_name"

    def __init__(self, image_size: tuple[int, int], root: Path, split: str | None):
        super().__init__(image_size)
        self._source = {"root": str(Path(root).resolve()), "labels": None, "split": split}

    @abstractmethod
    def _read(self, name: str) -> tuple[Image.Image, np.ndarray]:
        """An image and its mask (H0, W0): 1 on the object, 0 elsewhere, -1 ignored, 255 void."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            image, mask = self._read(self.names[index])
            name = f"{self.names[index]} of {self._source['root']}"
            check_sizes(name, (image.height, image.width), mask.shape, self.origin)
        except UserError as error:
            raise BadImageError(str(error)) from error
        return {
            "image": to_tensor(image, self.image_size),
            "label": self.labels[index],
            "index": index,
            "mask": mask_to_tensor(mask, self.image_size),
        }

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, **self._source}

    def _set_labels(self, given: Path | None, beside: Path, known: Collection[str]) -> dict[str, str]:
        """Fill `labels` for `names` and return the `split` of each image whose row names one.

        Args:
            given: `--labels-path`.
            beside: file that is taken where it exists.
            known: names that the file may list.
        """
        path = given if given is not None else beside if beside.is_file() else None
        self.labels = [NO_LABEL] * len(self.names)
        if path is None:
            return {}
        self._source["labels"] = str(Path(path).resolve())
        labels, splits = {}, {}
        for row in read_label_rows(path, self.label_key):
            name = (row[self.label_key] or "").strip()
            if name not in known:
                raise UserError(f"{path} labels image '{name}', which is not in {self._source['root']}")
            labels[name] = class_index(path, name, row["label"])
            if row.get("split"):
                splits[name] = row["split"].strip()
        self.labels = [labels.get(name, NO_LABEL) for name in self.names]
        return splits


def damaged(what: str, source: str) -> UserError:
    """The error of a set that is there but not as it should be.

    Args:
        what: what is wrong with which file.
        source: where the set comes from.
    """
    return UserError(f"{what}; the data set is damaged, get it again from {source}")


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    return " ".join(str(error).split())


def check_sizes(name: str, image: tuple[int, ...], mask: tuple[int, ...], source: str) -> None:
    """Raise `UserError` where the mask of image `name` is not of the image's (H, W)."""
    if tuple(image) != tuple(mask):
        sizes = f"{_text(image)} (height x width) but its mask is {_text(mask)}"
        raise damaged(f"image {name} is {sizes}", source)


def first_folder(candidates: list[Path], wanted: str, set_name: str, source: str) -> Path:
    """The first folder that holds `wanted`.

    Raises:
        UserError: none does; the message says what was looked for, where, and where the set comes from.
    """
    for folder in candidates:
        if (folder / wanted).exists():
            return folder
    places = " or ".join(dict.fromkeys(str(folder) for folder in candidates))
    raise UserError(
        f"{set_name} not found: looked for {wanted} in {places}; get it from {source} and pass the folder "
        "above it with --segmentation-root"
    )


def _text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size)) or "empty"
