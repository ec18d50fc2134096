"""Options of `report.py`."""

from dataclasses import MISSING
from pathlib import Path

from ltx.config import FILLS
from ltx.main.common.options import option, options


@options("comparison")
class ReportOptions:
    """`main/report.py`: results of any number of runs on one page."""

    runs: tuple[str, ...] = option(
        MISSING, "folders of evaluated runs; NAME=FOLDER renames", flag="RUN", group="options"
    )
    output: Path = option(Path("report.html"), "page to write; .md and .tex beside it", group="options")
    title: str | None = option(None, "heading of the page", group="options")
    verbose: bool = option(False, "log each step to standard error", group="options")
    reference: str | None = option(
        None, "row to compare with (default: last, else pltx, else first)", metavar="ROW"
    )
    rival: str | None = option(
        None,
        "row to compare it with image by image (default: the first of another run)",
        metavar="ROW",
    )
    differ_by: str | None = option(None, "metric of the largest differences (default: DEL)", metavar="METRIC")
    fill: str | None = option(None, "fill of the main table (default: black if in all runs)", choices=FILLS)
    score_class: str | None = option(
        None,
        "class of the main table (default: the explained one if all runs have it)",
        choices=("target", "predicted"),
    )
    common_images: bool = option(False, "compare runs over different images on those that all have")
    exclude_manifest: Path | None = option(None, "leave out the images of this CSV")
    latex_intervals: bool = option(True, "intervals in the LaTeX tables", group="options")
    resamples: int = option(2000, "number of bootstrap resamples", group="bootstrap", metavar="N")
    seed: int = option(42, "seed of the resamples", group="bootstrap")
    gallery_images: int = option(
        8, "images in the gallery, and on each side of the largest differences", group="pictures", metavar="N"
    )
    opened_images: int = option(
        48, "images that a press opens with all their maps and masked images", group="pictures", metavar="N"
    )
    images_path: Path | None = option(None, "folder of the images (default: the runs')", group="pictures")
