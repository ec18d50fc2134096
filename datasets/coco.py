"""COCO instances (Lin et al. 2014), through pycocotools: the union of all annotations is foreground."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import area as mask_area

from ltx.config import UserError
from ltx.datasets.pictures import read_image
from ltx.datasets.segmentation import SegmentationSet, check_sizes, damaged, first_folder, one_line

SOURCE = "https://cocodataset.org/#download (2017 Val images, 2017 Train/Val annotations)"


class CocoSegmentation(SegmentationSet):
    """The images of COCO that have an annotation; names are the file names.

    Args:
        root: folder that holds `coco/`, or the `annotations` folder itself. The images lie in `<split>` or
            `images/<split>`, the annotations in `annotations/instances_<split>.json`.
        image_size: (H, W).
        labels_path: CSV `img_name,label`; default `labels.csv` beside `annotations`, where there is one.
        split: default "val2017".

    Raises:
        UserError: a folder or file is missing or damaged, or an annotation fits no image.
    """

    kind = "coco"
    origin = SOURCE

    def __init__(
        self,
        root: Path,
        image_size: tuple[int, int],
        labels_path: Path | None = None,
        split: str | None = None,
    ):
        super().__init__(image_size, root, split)
        split = split or "val2017"
        wanted = f"annotations/instances_{split}.json"
        base = first_folder([Path(root) / "coco", Path(root)], wanted, f"COCO {split}", SOURCE)
        self.path = base / wanted
        self._folder = _images_folder(base, split)
        self._coco = _load(self.path)
        ids = sorted({annotation["image_id"] for annotation in self._coco.anns.values()})
        if not ids:
            raise damaged(f"{self.path} has no annotations", SOURCE)
        self._id_of = {self._coco.imgs[image_id]["file_name"]: image_id for image_id in ids}
        self.names = list(self._id_of)
        for name, image_id in self._id_of.items():
            self._check_image(name, self._coco.imgs[image_id])
        known = {image["file_name"] for image in self._coco.imgs.values()}
        self._set_labels(labels_path, base / "labels.csv", known)

    def _check_image(self, name: str, record: dict) -> None:
        path = self._folder / name
        if not path.is_file():
            raise UserError(
                f"{self.path} has annotations of {name}, which is not in {self._folder}; get the images from "
                f"{SOURCE}"
            )
        try:
            with Image.open(path) as image:
                sizes = (image.height, image.width), (record["height"], record["width"])
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise damaged(f"cannot read image {path}: {one_line(error)}", SOURCE) from error
        check_sizes(str(path), *sizes, SOURCE)

    def _read(self, name: str) -> tuple[Image.Image, np.ndarray]:
        try:
            image = read_image(self._folder / name)
        except UserError as error:
            raise damaged(str(error), SOURCE) from error
        union = np.zeros((image.height, image.width), dtype=np.uint8)
        for annotation in self._coco.imgToAnns[self._id_of[name]]:
            try:
                _check_segmentation(annotation["segmentation"], *union.shape)
                mask = self._coco.annToMask(annotation)
                if mask.sum() != mask_area(self._coco.annToRLE(annotation)):
                    raise ValueError("its runs do not fill the image")
            except Exception as error:  # pycocotools raises bare exceptions
                what = f"{self.path}: annotation {annotation['id']} of {name} has no valid segmentation"
                raise damaged(f"{what}: {one_line(error)}", SOURCE) from error
            name_here = f"{name} (annotation {annotation['id']} of {self.path})"
            check_sizes(name_here, union.shape, mask.shape, SOURCE)
            union |= mask
        return image, union


def _images_folder(base: Path, split: str) -> Path:
    """Return the folder of the images, in either of the two usual layouts."""
    candidates = (base / split, base / "images" / split)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(
        f"COCO's images not found: looked for the folders {candidates[0]} and {candidates[1]}; get them from "
        f"{SOURCE}"
    )


def _check_segmentation(segmentation, height: int, width: int) -> None:
    """Raises `ValueError` where pycocotools, which is C, would leave its memory or not end."""
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        size = segmentation.get("size")
        if size != [height, width]:
            size = "x".join(map(str, size)) if isinstance(size, list) else size
            raise ValueError(f"the image is {height}x{width} but its mask is {size}")
        if isinstance(counts, list) and not (
            all(isinstance(run, int) and run >= 0 for run in counts) and sum(counts) == height * width
        ):
            raise ValueError("its runs do not fill the image")
        return
    polygons = segmentation if isinstance(segmentation, list) else [segmentation]
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs three corners or more, x and y of each")
        limit = 10 * max(height, width)
        if not all(isinstance(value, int | float) and abs(value) <= limit for value in polygon):
            raise ValueError("a polygon has corners that are no numbers, or far outside the image")


def _load(path: Path) -> COCO:
    """The annotations, each with an image of known name and size."""
    try:
        # pycocotools tells of its progress on standard output, which is ours.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            coco = COCO(str(path))
    except json.JSONDecodeError as error:
        raise UserError(f"cannot read {path}: {error}; is the file whole? It comes from {SOURCE}") from error
    except (OSError, UnicodeDecodeError, KeyError, TypeError, AssertionError, RecursionError) as error:
        what = f"{path} holds no COCO instances: {type(error).__name__} {one_line(error)}"
        raise damaged(what, SOURCE) from error
    missing = [key for key in ("images", "annotations") if key not in coco.dataset]
    if missing:
        found = ", ".join(coco.dataset) or "nothing"
        raise damaged(f"{path} holds no COCO instances: it has no '{missing[0]}', only {found}", SOURCE)
    for image in coco.imgs.values():
        _check_fields(path, f"image {image['id']}", image, {"file_name": str, "height": int, "width": int})
    for annotation in coco.anns.values():
        what = f"annotation {annotation['id']}"
        _check_fields(path, what, annotation, {"image_id": int, "segmentation": list | dict})
        if annotation["image_id"] not in coco.imgs:
            image = f"image {annotation['image_id']}, which the file does not list"
            raise damaged(f"{path}: {what} belongs to {image}", SOURCE)
    return coco


def _check_fields(path: Path, what: str, record: dict, fields: dict[str, type]) -> None:
    """Raises `UserError` where a record lacks a field, or has something else there."""
    for name, kind in fields.items():
        if name not in record:
            raise damaged(f"{path}: {what} has no {name}", SOURCE)
        if not isinstance(record[name], kind):
            raise damaged(f"{path}: {what} has the {name} {record[name]!r:.80}", SOURCE)
