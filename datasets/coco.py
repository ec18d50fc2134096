"""COCO instances (Lin et al. 2014), through pycocotools: the union of all annotations is foreground."""

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import area as mask_area

from ltx.config import UserError
from ltx.datasets.pictures import read_image
from ltx.datasets.segmentation import SegmentationSet, check_sizes, damaged, first_folder, one_line

log = logging.getLogger(__name__)

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
        ids = sorted(self._coco.imgToAnns, key=lambda key: (isinstance(key, str), key))
        if not ids:
            raise damaged(f"{self.path} has no annotation that can be used", SOURCE)
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
        annotations, wrong = self._coco.imgToAnns[self._id_of[name]], []
        for annotation in annotations:
            try:
                mask = self._coco.annToMask(annotation)
                if mask.sum() != mask_area(self._coco.annToRLE(annotation)):
                    raise ValueError("its runs do not fill the image")
            except Exception as error:  # pycocotools raises bare exceptions
                wrong.append(f"annotation {annotation['id']}: {one_line(error)}")
                continue
            name_here = f"{name} (annotation {annotation['id']} of {self.path})"
            check_sizes(name_here, union.shape, mask.shape, SOURCE)
            union |= mask
        if wrong and len(wrong) == len(annotations):
            raise damaged(f"{self.path}: {name} has no valid segmentation ({wrong[0]})", SOURCE)
        for why in wrong:
            log.warning("%s: %s is left out of the mask of %s", self.path, why, name)
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


def _load(path: Path) -> COCO:
    """The annotations that fit an image of known name and size; the others are counted and named in the log.

    Raises:
        UserError: the file is no COCO JSON, or lists no images or annotations.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(f"cannot read {path}: {one_line(error)}; is the file whole?", SOURCE) from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
            raise damaged(
                f"{path} holds no COCO instances: it has no '{key}', only {found or 'nothing'}", SOURCE
            )
    left_out: list[str] = []
    images = {}
    for record in content["images"]:
        if why := _wrong_field(record, {"id": int | str, "file_name": str, "height": int, "width": int}):
            left_out.append(f"{_named('image', record)} {why}")
        else:
            images[record["id"]] = record
    annotations = []
    for record in content["annotations"]:
        if why := _wrong_annotation(record, images):
            left_out.append(f"{_named('annotation', record)} {why}")
        else:
            annotations.append(record)
            left_out += _drop_bad_polygons(record, images[record["image_id"]])
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        log.warning("%s: left out: %s%s", path, "; ".join(left_out[:3]), more)
    coco = COCO()
    coco.dataset = {"images": list(images.values()), "annotations": annotations}
    with contextlib.redirect_stdout(None):  # pycocotools reports its progress there
        coco.createIndex()
    return coco


def _named(kind: str, record: Any) -> str:
    return f"{kind} {record.get('id', 'without id')}" if isinstance(record, dict) else kind


def _wrong_field(record: Any, fields: dict[str, Any]) -> str | None:
    """The first field that a record lacks or that has another type, None where all are right."""
    if not isinstance(record, dict):
        return f"is {record!r:.80}"
    for name, kind in fields.items():
        if name not in record:
            return f"has no {name}"
        if not isinstance(record[name], kind):
            return f"has the {name} {record[name]!r:.80}"
    return None


def _wrong_annotation(record: Any, images: dict) -> str | None:
    """Reason why an annotation is unusable, None where one of its polygons or its runs can be used."""
    if why := _wrong_field(record, {"id": int | str, "image_id": int | str, "segmentation": list | dict}):
        return why
    if record["image_id"] not in images:
        return f"belongs to image {record['image_id']}, which the file does not list"
    image, shape = images[record["image_id"]], record["segmentation"]
    if isinstance(shape, dict):
        return _wrong_runs(shape, image["height"], image["width"])
    if not shape:
        return "has no polygon"
    wrong = [_wrong_polygon(polygon, max(image["height"], image["width"])) for polygon in shape]
    return wrong[0] if all(wrong) else None


def _drop_bad_polygons(record: dict, image: dict) -> list[str]:
    """Keep the usable polygons of an annotation; return what was dropped."""
    if isinstance(record["segmentation"], dict):
        return []
    side = max(image["height"], image["width"])
    wrong = [_wrong_polygon(polygon, side) for polygon in record["segmentation"]]
    record["segmentation"] = [p for p, why in zip(record["segmentation"], wrong, strict=True) if not why]
    return [f"a polygon of annotation {record['id']} that {why}" for why in wrong if why]


def _wrong_runs(mask: dict, height: int, width: int) -> str | None:
    """Reason why run lengths are unusable: pycocotools, which is C, would leave its memory or not end."""
    counts, size = mask.get("counts"), mask.get("size")
    if size != [height, width]:
        size = "x".join(map(str, size)) if isinstance(size, list) else size
        return f"is {size} and its image {height}x{width}"
    if isinstance(counts, list) and not (
        all(isinstance(run, int) and run >= 0 for run in counts) and sum(counts) == height * width
    ):
        return "has runs that do not fill the image"
    return None if isinstance(counts, list | str) else "has no runs"


def _wrong_polygon(polygon: Any, side: int) -> str | None:
    """Reason why a polygon is unusable, on an image whose longer side has `side` pixels."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return "has fewer than three corners"
    if not all(isinstance(value, int | float) and abs(value) <= 10 * side for value in polygon):
        return "has corners that are not numbers, or far outside the image"
    xs, ys = np.array(polygon[::2], dtype=float), np.array(polygon[1::2], dtype=float)
    return None if np.dot(xs, np.roll(ys, 1)) != np.dot(ys, np.roll(xs, 1)) else "has no area"
