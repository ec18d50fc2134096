"""The page's pictures: the same images under the maps of all rows, and sheets of segmentation."""

import base64
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ltx import config
from ltx.config import UserError
from ltx.datasets.base import BadImageError, ImageSet
from ltx.datasets.build import rebuild
from ltx.datasets.classes import names_of_classes, short_name
from ltx.datasets.pictures import is_within
from ltx.main.common.drawing import overlay
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.rows import Comparison, Row
from ltx.main.report_page.statistics import Statistics
from ltx.main.report_page.tables import number
from ltx.main.runs.explainee_input import size_of_run
from ltx.main.runs.mask_files import read_map
from ltx.models.masking import min_max

log = logging.getLogger(__name__)

_LONGEST, _SHEET_WIDTH = 224, 760
_QUALITY = 74
_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        source: data URI.
        alt: its description.
        caption: line below it.
    """

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class GalleryRow:
    """One image under the maps of all rows."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Gallery:
    """Images by rows, rows of the comparison by columns."""

    columns: Sequence[str]
    rows: Sequence[GalleryRow]


class GalleryMaker:
    """Galleries of a comparison's images and maps.

    Args:
        comparison: rows and images.
        statistics: the reference comes first.
        options: `images_path`.
    """

    def __init__(self, comparison: Comparison, statistics: Statistics, options: ReportOptions):
        self.comparison = comparison
        reference = comparison.row(statistics.reference)
        others = [row for row in comparison.rows if row is not reference and not row.randomised]
        self.rows = [reference, *others]
        self.images = _image_set(reference, options)
        self.places = {} if self.images is None else {name: i for i, name in enumerate(self.images.names)}

    def gallery(self, chosen: Sequence[int], metric: str | None, note: Callable[[int], str]) -> Gallery:
        """Return a gallery of some images of the comparison.

        Args:
            chosen: their positions.
            metric: its value is the caption of each map.
            note: further words beside an image.
        """
        rows = [self._row(i, metric, note(i)) for i in chosen]
        return Gallery(["image", *[row.label for row in self.rows]], rows)

    def _row(self, i: int, metric: str | None, note: str) -> GalleryRow:
        name = self.comparison.images[i]
        height, width = self.rows[0].run.record.input_size
        size = (height, width)
        pixels = None
        if name in self.places:
            try:
                pixels = self.images[self.places[name]]["image"]
            except BadImageError as error:
                log.warning("the galleries show a map without its image: %s", error)
        pictures = [] if pixels is None else [_picture(pixels.permute(1, 2, 0).numpy(), f"image {name}")]
        for row in self.rows:
            saliency = min_max(read_map(row.run.folder, int(row.positions[i]), row.variant, size)[None])[0]
            ground = torch.full((3, *saliency.shape), 0.5) if pixels is None else pixels
            caption = ""
            if metric in row.measures:
                value = float(row.measures[metric].per_image[i])
                caption = number(value if np.isfinite(value) else None)
            pictures.append(
                _picture(overlay(ground, saliency), f"map of {row.label} for image {name}", caption)
            )
        if pixels is None:
            pictures.insert(0, Picture("", "the image is no longer there"))
        words = [f"image {name}" if name.isdecimal() else name, self._class_name(i), note]
        return GalleryRow(" · ".join(word for word in words if word), pictures)

    def _class_name(self, i: int) -> str:
        label = int(self.comparison.classes[i])
        if label < 0:
            return ""
        explainee = self.rows[0].run.record.explainee
        name = explainee["name"]
        n_classes = 10 if name == "vit_digits" else _IMAGENET_CLASSES
        if name in config.ALIASES and not explainee.get("checkpoint") and label < n_classes:
            words = short_name(names_of_classes(name, n_classes)[label])
            return f"class {label}" if words == str(label) else f"class {label} ({words})"
        return f"class {label}"


def _image_set(row: Row, options: ReportOptions) -> ImageSet | None:
    """Return the run's images, or None (with a warning) if they are no longer there."""
    described = row.run.record.dataset
    if options.images_path is not None:
        described = described | {"root": str(options.images_path), "labels": None}
    try:
        return rebuild(described, size_of_run(row.run.record))
    except (UserError, KeyError, TypeError) as error:
        if options.images_path is not None:
            raise UserError(f"--images-path {options.images_path}: {error}") from error
        log.warning("the galleries show maps without their images: %s; pass --images-path", error)
        return None


def spread(n_images: int, wanted: int) -> list[int]:
    """Return positions of `wanted` images, evenly spread over the set."""
    wanted = min(wanted, n_images)
    return [i * n_images // wanted for i in range(wanted)]


def most_different(
    reference: np.ndarray, rival: np.ndarray, higher_is_better: bool, wanted: int
) -> tuple[list[int], list[int]]:
    """Return the images on which the reference is most ahead, and those on which the rival is.

    Args:
        reference: (N,) values, NaN where an image does not count.
        rival: (N,).
        higher_is_better: of the metric.
        wanted: largest number of each.
    """
    gain = np.where(np.isfinite(reference) & np.isfinite(rival), reference - rival, 0.0)
    gain = gain if higher_is_better else -gain
    order = np.argsort(-gain, kind="stable").tolist()
    ahead = [i for i in order[:wanted] if gain[i] > 0]
    behind = [i for i in order[::-1][:wanted] if gain[i] < 0]
    return ahead, behind


def sheets(comparison: Comparison) -> list[Picture]:
    """Return the sheets that the segmentation evaluator wrote, one per row that has one."""
    found = []
    for row in comparison.rows:
        path = row.folder / f"{row.variant}.png"
        if not is_within(row.variant) or not path.is_file():
            log.warning("%s has no sheet %s.png", row.run.name, row.variant)
            continue
        try:
            with Image.open(path) as image:
                pixels = image.convert("RGB")
        except OSError as error:
            log.warning("cannot read %s: %s", path, error)
            continue
        pixels.thumbnail((_SHEET_WIDTH, 10 * _SHEET_WIDTH))
        found.append(Picture(_data_uri(pixels), f"segmentation sheet of {row.label}", row.label))
    return found


def _picture(pixels: np.ndarray | Tensor, alt: str, caption: str = "") -> Picture:
    image = Image.fromarray((np.asarray(pixels).clip(0, 1) * 255).round().astype(np.uint8))
    image.thumbnail((_LONGEST, _LONGEST))
    return Picture(_data_uri(image), alt, caption)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="webp", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
