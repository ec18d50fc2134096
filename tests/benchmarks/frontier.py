"""Score against seconds of LTX: steps, sizes of the order loss, rate, and the rest of its options.

    python tests/benchmarks/frontier.py --images-path DIR --labels-path FILE --split tune [--max-images 64] \
        --out DIR
    python tests/benchmarks/frontier.py --model vit_digits --max-images 128 --out DIR

A setting is a line `name: flags of run_seg_cls_opt.py` of `--settings FILE`, by default `SETTINGS`; the first
is what the others are compared with. The images are spread evenly over the set. Seconds are CPU seconds per
image of `finetune`, so that other work on the machine disturbs them less. What is in `--out` is not made
again. The script prints a table with paired 95% intervals and draws `frontier.png`.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ltx.datasets.base import ImageSet
from ltx.datasets.build import stack
from ltx.datasets.digits import DigitsOnPhotos
from ltx.datasets.imagenet import open_folder
from ltx.main.common import cli
from ltx.main.common.devices import speed_up
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import choose_metrics
from ltx.main.runs.build_models import load_explainee, pretrained_explainer, settled
from ltx.main.seg_classification.finetuning import finetune
from ltx.main.seg_classification.ltx_run import finetune_settings
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.explainee import Explainee
from ltx.models.losses import Objective
from ltx.models.masking import upsample

METRICS = choose_metrics("POS,NEG,DEL,INS,ADP,PIC")
SETTINGS = """\
ordered: --recipe ordered
three_sizes: --recipe ordered --kink-width 0.3 --finetune-decay True --finetune-lr 1e-3 --order-samples 3
released: --recipe released
"""
_AT_ONCE, _RESAMPLES = 4, 4000


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images-path", type=Path, help="folder of photographs (default: digits)")
    flags.add_argument("--labels-path", type=Path, help="CSV of its labels")
    flags.add_argument("--split", default="tune", help="split of the CSV, or of the digits")
    flags.add_argument("--max-images", type=int, default=64)
    flags.add_argument("--model", default="efficientnet_lite0", help="alias of explainer and explainee")
    flags.add_argument("--settings", type=Path, help="a line `name: flags` for each")
    flags.add_argument("--out", type=Path, required=True, help="folder of the results")
    flags.add_argument("--threads", type=int, help="default: all")
    return flags


def read_settings(text: str) -> dict[str, list[str]]:
    """Flags by name, from lines `name: flags`."""
    lines = (line.split(":", 1) for line in text.splitlines() if line.strip())
    return {name.strip(): shlex.split(flags) for name, flags in lines}


def open_images(options: argparse.Namespace, size: tuple[int, int]) -> ImageSet:
    """Photographs of the split, or digits."""
    if options.images_path is None:
        return DigitsOnPhotos(options.split, image_size=size)
    return open_folder(options.images_path, size, options.labels_path, options.split)


def measure(options: argparse.Namespace, flags: list[str]) -> dict[str, np.ndarray]:
    """Masks `last`, scores (images, metrics) and CPU seconds per image of one setting."""
    pair = ["--explainee-model-name", options.model, "--explainer-model-name", options.model]
    parsed = cli.parse(FinetuneOptions, [*pair, "--select-best", "False", *flags])
    explainee = load_explainee(parsed)
    explainer, path, _ = pretrained_explainer(parsed, explainee)
    parsed = settled(parsed, explainer)
    speed_up(parsed, explainee, explainer)
    data = open_images(options, explainee.input_size)
    n = min(options.max_images, len(data))
    images = stack(data, np.linspace(0, len(data) - 1, n).astype(int).tolist())
    with torch.no_grad():  # one at a time: rounding then depends on no neighbour
        classes = torch.cat([explainee(image[None]).argmax(1) for image in images])
    how, objective = finetune_settings(parsed, explainer, path), Objective.from_options(parsed)
    masks, scores, seconds = [], [], 0.0
    for some, asked in zip(images.split(_AT_ONCE), classes.split(_AT_ONCE), strict=True):
        begin = time.process_time()
        masks.append(finetune(explainer, explainee, some, asked, asked, objective, how)[0]["last"])
        seconds += time.process_time() - begin
        scores.append(score(explainee, some, asked, masks[-1]))
    return {
        "masks": torch.cat(masks).numpy(),
        "scores": np.concatenate(scores),
        "seconds": np.array(seconds / n),
    }


@torch.no_grad()
def score(explainee: Explainee, images: Tensor, classes: Tensor, masks: Tensor) -> np.ndarray:
    """Metrics (images, metrics) of token masks (images, h, w)."""
    maps = upsample(masks, images.shape[-2:])
    view = MapView(ImageBatch(explainee, images, classes), maps, maps)
    return torch.stack([metric.per_image(view).double() for metric in METRICS], 1).numpy()


def better_by(one: np.ndarray, other: np.ndarray) -> list[str]:
    """How much better `one` is, by metric, with the paired 95% interval over images."""
    signs = np.array([1 if metric.higher_is_better else -1 for metric in METRICS])
    difference = (one - other) * signs
    rows = np.random.default_rng(0).integers(0, len(one), (_RESAMPLES, len(one)))
    low, high = np.percentile(difference[rows].mean(1), (2.5, 97.5), axis=0)
    means = difference.mean(0)
    return [f"{m:+.1f} ({a:+.1f} to {b:+.1f})" for m, a, b in zip(means, low, high, strict=True)]


def draw(made: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """One panel per metric: its mean against seconds."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    for axis, number in zip(figure.subplots(2, 3).flat, range(len(METRICS)), strict=True):
        for name, found in made.items():
            x, y = float(found["seconds"]), float(found["scores"][:, number].mean())
            axis.plot(x, y, "o", markersize=4)
            axis.annotate(name, (x, y), fontsize=5, xytext=(3, 2), textcoords="offset points")
        arrow = "higher" if METRICS[number].higher_is_better else "lower"
        axis.set_title(f"{METRICS[number].name} ({arrow} is better)", fontsize=8)
        axis.set_xlabel("CPU seconds per image", fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure every setting, print the table and draw the figure."""
    options = parser().parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    made: dict[str, dict[str, np.ndarray]] = {}
    for name, flags in read_settings(options.settings.read_text() if options.settings else SETTINGS).items():
        file = options.out / f"{name}.npz"
        if not file.is_file():
            np.savez(file, **measure(options, flags))
        with np.load(file) as stored:
            made[name] = dict(stored)
        print(f"{name}: {float(made[name]['seconds']):.1f} CPU seconds", file=sys.stderr)
    names = " | ".join(metric.name for metric in METRICS)
    print(f"\n| setting | CPU s | {names} |\n|---|---|" + "---|" * len(METRICS))
    first = next(iter(made.values()))
    for name, found in made.items():
        means = " | ".join(f"{value:.1f}" for value in found["scores"].mean(0))
        print(f"| {name} | {float(found['seconds']):.1f} | {means} |")
        if found is not first:
            print("| better by | | " + " | ".join(better_by(found["scores"], first["scores"])) + " |")
    draw(made, options.out / "frontier.png")


if __name__ == "__main__":
    main()
