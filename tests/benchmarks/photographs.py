"""Explain ten photographs of scikit-image and scikit-learn; print their table and draw README's picture.

    pip install scikit-image
    python tests/benchmarks/photographs.py data/photographs --recipe ordered

Copies the photographs into the folder and runs `main/explain.py` on it twice, with one forward pass and with
25 steps. The runs lie below the folder, and so does `photographs.jpg`: six of the photographs, each with its
map and its masked image after the steps. Flags after the folder go to `main/explain.py`.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).resolve().parents[2]
if not __package__:  # run as a file
    run_path(str(ROOT / "__init__.py"))

import torch
from matplotlib.figure import Figure
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from ltx.datasets.classes import names_of_classes, short_name
from ltx.main.common.drawing import cells
from ltx.main.runs.mask_files import MaskUnit, read_unit, unit_files

FROM_SKIMAGE = (
    "astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip
FROM_SKLEARN = ("china.jpg", "flower.jpg")
SCORES = ("mask_area", "masked_probability", "complement_probability")
# Public domain, CC0 or CC BY.
DRAWN = ("coffee.png", "chelsea.png", "camera.png", "china.jpg", "rocket.jpg", "flower.jpg")


def copy_pictures(folder: Path) -> None:
    """Copy the ten pictures into a folder."""
    import skimage.data
    import sklearn.datasets

    places = {
        Path(skimage.data.__file__).parent: FROM_SKIMAGE,
        Path(sklearn.datasets.__file__).parent / "images": FROM_SKLEARN,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for place, names in places.items():
        for name in names:
            shutil.copy(place / name, folder / name)


def explain(folder: Path, steps: int, flags: list[str]) -> list[MaskUnit]:
    """Run the script as a user does; return the mask files in the order of the pictures' names."""
    command = [
        sys.executable,
        str(ROOT / "main" / "explain.py"),
        "--input",
        str(folder),
        "--steps",
        str(steps),
    ]
    runs = ["--default-root-dir", str(folder / "runs")]
    done = subprocess.run([*command, *runs, *flags], check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    run = json.loads(done.stdout.splitlines()[-1])["run"]
    return [read_unit(path) for path in unit_files(Path(run))]


def row(name: str, before: MaskUnit, after: MaskUnit, names: list[str]) -> str:
    """One line of the table."""
    cells = [name, short_name(names[before.classes[0]]), f"{before.arrays['probability'][0]:.0%}"]
    cells += [f"{unit.arrays[score][0]:.0%}" for unit in (before, after) for score in SCORES]
    return f"| {' | '.join(cells)} |"


def draw(folder: Path, units: dict[str, MaskUnit], names: list[str]) -> None:
    """Write `photographs.jpg`, two photographs a row, each as image, map and masked image.

    Args:
        folder: of the photographs.
        units: LTX mask file by photograph.
        names: name of each class.
    """
    figure = Figure(figsize=(12, 5.4), dpi=100, layout="constrained")
    axes = figure.subplots((len(DRAWN) + 1) // 2, 6)
    for number, name in enumerate(DRAWN):
        unit = units[name]
        values = {score: array[0] for score, array in unit.arrays.items() if array.ndim == 1}
        picture = TF.to_dtype(
            TF.pil_to_tensor(Image.open(folder / name).convert("RGB")), torch.float32, scale=True
        )
        image, saliency, _, masked = cells(picture, unit.maps("last", tuple(picture.shape[-2:]))[0])
        captions = (
            f"{short_name(names[unit.classes[0]])}: {values['probability']:.0%}",
            f"keeps {values['mask_area']:.0%}",
            f"masked: {values['masked_probability']:.0%}",
        )
        row, start = number // 2, number % 2 * 3
        for axis, cell, caption in zip(
            axes[row, start : start + 3], (image, saliency, masked), captions, strict=True
        ):
            axis.imshow(cell.clip(0, 1))
            axis.set_xlabel(caption, fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.savefig(folder / "photographs.jpg", pil_kwargs={"quality": 88})


def main(folder: Path, flags: list[str]) -> None:
    """Explain the pictures both ways, print the table and draw the picture."""
    copy_pictures(folder)
    before, after = (explain(folder, steps, flags) for steps in (0, 25))
    names = names_of_classes("efficientnet_lite0", 1000)
    scores = " | ".join(("keeps", "p masked", "p complement"))
    print(f"| picture | top class | p | pLTX {scores} | LTX {scores} |")
    print("|---|---|---|---|---|---|---|---|---|")
    pictures = sorted(FROM_SKIMAGE + FROM_SKLEARN)
    for picture, *units in zip(pictures, before, after, strict=True):
        print(row(picture, *units, names))
    draw(folder, dict(zip(pictures, after, strict=True)), names)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
