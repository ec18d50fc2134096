"""Options of `report.py`."""
from dataclasses import MISSING, dataclass
from pathlib import Path

from ltx.config import FILLS
from ltx.main.common.options import option


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """`main/report.py`: results of any number of runs to one page."""

    runs: tuple[str, ...] = option(
        MISSING, "folders of runs that were evaluated; NAME=FOLDER renames one", flag="RUN"
    )
    output: Path = option(Path("report.html"), "page to write; its tables go beside it as .md and .tex",
                          metavar="FILE")  # fmt: skip
    title: str | None = option(None, "heading of the page")
    verbose: bool = option(False, "log what is being done")
    reference: str | None = option(
        None, "row that the others are compared with (default: last, else pltx, else the first)",
        group="comparison", metavar="ROW",
    )  # fmt: skip
    rival: str | None = option(
        None, "row that it is compared with image by image (default: best mean rank of the other runs)",
        group="comparison", metavar="ROW",
    )  # fmt: skip
    differ_by: str | None = option(
        None, "metric that chooses the images on which the two differ most (default: DEL, where it is)",
        group="comparison", metavar="METRIC",
    )  # fmt: skip
    fill: str | None = option(
        None, "the main table's fill (default: black, where all runs have it)",
        choices=FILLS, group="comparison",
    )  # fmt: skip
    score_class: str | None = option(
        None, "results of this class alone (default: the one explained, where all runs have it)",
        choices=("target", "predicted"), group="comparison",
    )  # fmt: skip
    common_images: bool = option(
        False, "runs over different images: compare those that all have", group="comparison"
    )
    exclude_manifest: Path | None = option(
        None, "leave out the images that this CSV lists", group="comparison", metavar="FILE"
    )
    resamples: int = option(2000, "resamples of the bootstrap", group="bootstrap", metavar="N")
    seed: int = option(42, "what they are drawn from", group="bootstrap")
    gallery_images: int = option(
        8, "images of the gallery, and of each side of those that differ most", group="pictures", metavar="N"
    )
    images_path: Path | None = option(
        None, "folder that holds the runs' images now (default: where they were)", group="pictures",
        metavar="DIR",
    )  # fmt: skip
