"""The page's pictures: the same images under the maps of all rows, and sheets of segmentation."""

import base64
import io
import logging
from collections.abc import Sequence
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
from ltx.main.common.drawing import Style, masked_image, overlay
from ltx.main.common.figures import to_image
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.rows import Comparison, Row
from ltx.main.report_page.statistics import Statistics
from ltx.main.report_page.tables import number
from ltx.main.runs.explainee_input import size_of_run
from ltx.main.runs.mask_files import read_map
from ltx.models.masking import min_max, upsample

log = logging.getLogger(__name__)

_LONGEST, _LONGEST_MAP, _SHEET_WIDTH = 224, 64, 760
_QUALITY = 74
_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        source: data URI.
        alt: its description.
        caption: line below it.
        view: key of the image's `View`, which a press opens; nothing where there is none.
    """

    source: str
    alt: str
    caption: str = ""
    view: str = ""


@dataclass(frozen=True)
class GalleryRow:
    """One image under the maps of all rows."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class View:
    """One image with the maps of all rows, from which the page draws overlays and masked images.

    Attributes:
        title: words about the image.
        image: data URI.
        maps: of each row, its title, a data URI of the map in grey and the caption.
    """

    title: str
    image: str
    maps: Sequence[tuple[str, str, str]]


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

    Attributes:
        opened: positions of the images that have a view.
    """

    def __init__(self, comparison: Comparison, statistics: Statistics, options: ReportOptions):
        self.comparison = comparison
        reference = comparison.row(statistics.reference)
        others = [row for row in comparison.rows if row is not reference and not row.randomised]
        self.rows = [reference, *others]
        self.images = _image_set(reference, options)
        self.places = {} if self.images is None else {name: i for i, name in enumerate(self.images.names)}
        self.opened: set[int] = set()

    def gallery(self, chosen: Sequence[int], metric: str | None) -> Gallery:
        """Return a gallery of some images of the comparison.

        Args:
            chosen: their positions.
            metric: its value is the caption of each map.
        """
        rows = [self._row(i, metric) for i in chosen]
        return Gallery(["image", *[row.title for row in self.rows]], rows)

    def typical(self, i: int) -> GalleryRow:
        """Return an image, its map by the reference and what this keeps."""
        pixels, saliency, name = self._pixels(i), self._map(self.rows[0], i), self.rows[0].title
        if pixels is None:
            return GalleryRow("", [])
        times = max(1, _LONGEST // max(saliency.shape))  # a contour over few pixels hides them
        size = (times * saliency.shape[0], times * saliency.shape[1])
        pixels, saliency = upsample(pixels, size), upsample(saliency, size)
        pictures = [
            _picture(pixels.permute(1, 2, 0), f"image {self.comparison.images[i]}", "image"),
            _picture(overlay(pixels, saliency), f"map of {name}", name),
            _picture(masked_image(pixels, saliency), f"what {name} keeps", "what it keeps"),
        ]
        return GalleryRow(self._words(i), pictures)

    def view(self, i: int, metric: str | None) -> View | None:
        """Return an image with all maps; None if the image is no longer there."""
        pixels = self._pixels(i)
        if pixels is None:
            return None
        maps = []
        for row in self.rows:
            grey = Image.fromarray((self._map(row, i).numpy() * 255).round().astype(np.uint8))
            grey.thumbnail((_LONGEST_MAP, _LONGEST_MAP), Image.Resampling.BILINEAR)
            maps.append((row.title, _data_uri(grey), _value(row, metric, i)))
        return View(self._words(i), _picture(pixels.permute(1, 2, 0), "").source, maps)

    def key(self, i: int) -> str:
        """Key of an image's view on the page."""
        return f"{self.comparison.protocol}-{i}" if i in self.opened else ""

    def _row(self, i: int, metric: str | None) -> GalleryRow:
        name, pixels = self.comparison.images[i], self._pixels(i)
        pictures = [Picture("", "the image is no longer there")]
        if pixels is not None:
            pictures = [_picture(pixels.permute(1, 2, 0), f"image {name}", view=self.key(i))]
        for row in self.rows:
            saliency = self._map(row, i)
            ground = torch.full((3, *saliency.shape), 0.5) if pixels is None else pixels
            alt = f"map of {row.title} for image {name}"
            style = Style(contour=max(saliency.shape) >= _LONGEST // 2)
            pictures.append(
                _picture(overlay(ground, saliency, style), alt, _value(row, metric, i), self.key(i))
            )
        return GalleryRow(self._words(i), pictures)

    def _pixels(self, i: int) -> Tensor | None:
        """Return an image (3, H, W), or None (with a warning) if it cannot be read."""
        name = self.comparison.images[i]
        if self.images is None or name not in self.places:
            return None
        try:
            return self.images[self.places[name]]["image"]
        except BadImageError as error:
            log.warning("the galleries show a map without its image: %s", error)
            return None

    def _map(self, row: Row, i: int) -> Tensor:
        """Return a row's map (H, W) of an image, scaled to its own range."""
        height, width = self.rows[0].run.record.input_size
        return min_max(read_map(row.run.folder, int(row.positions[i]), row.variant, (height, width))[None])[0]

    def _words(self, i: int) -> str:
        name = self.comparison.images[i]
        words = [f"image {name}" if name.isdecimal() else name, self._class_name(i)]
        return " · ".join(word for word in words if word)

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
        found.append(Picture(_data_uri(pixels), f"segmentation sheet of {row.title}", row.title))
    return found


def _value(row: Row, metric: str | None, i: int) -> str:
    """Return a row's figure on an image as text; nothing where it has none."""
    if metric not in row.measures:
        return ""
    value = float(row.measures[metric].per_image[i])
    return number(value if np.isfinite(value) else None)


def _picture(pixels: np.ndarray | Tensor, alt: str, caption: str = "", view: str = "") -> Picture:
    image = to_image(np.asarray(pixels))
    image.thumbnail((_LONGEST, _LONGEST))
    return Picture(_data_uri(image), alt, caption, view)


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="webp", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
