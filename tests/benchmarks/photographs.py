"""Explains ten photographs that scikit-image and scikit-learn ship, and prints README's table of them.

    pip install scikit-image
    python tests/benchmarks/photographs.py data/photographs

Copies the pictures into the folder, runs `main/explain.py` on it (one forward pass, then 25 steps), and
writes its runs below it; the sheets are to be looked at. Flags after the folder go to `main/explain.py`.
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

from ltx.datasets.classes import names_of_classes, short_name
from ltx.main.runs.mask_files import MaskUnit, read_unit, unit_files

FROM_SKIMAGE = (
    "astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip
FROM_SKLEARN = ("china.jpg", "flower.jpg")
SCORES = ("mask_area", "masked_probability", "complement_probability")


def copy_pictures(folder: Path) -> None:
    """Puts the ten pictures into a folder."""
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
    """Runs the script as a user does; the mask files, in the order of the pictures' names."""
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
    cells = [name, short_name(names[before.target[0]]), f"{before.arrays['probability'][0]:.0%}"]
    cells += [f"{unit.arrays[score][0]:.0%}" for unit in (before, after) for score in SCORES]
    return f"| {' | '.join(cells)} |"


def main(folder: Path, flags: list[str]) -> None:
    """Explains the pictures both ways and prints the table."""
    copy_pictures(folder)
    before, after = (explain(folder, steps, flags) for steps in (0, 25))
    names = names_of_classes("efficientnet_lite0", 1000)
    scores = " | ".join(("keeps", "p masked", "p complement"))
    print(f"| picture | top class | p | pLTX {scores} | LTX {scores} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for picture, *units in zip(sorted(FROM_SKIMAGE + FROM_SKLEARN), before, after, strict=True):
        print(row(picture, *units, names))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
