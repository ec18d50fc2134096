"""LTX side by side against the released procedure: images per second, equal masks.

    python tests/benchmarks/finetuning.py [--pairs digits lite0] [--images-path DIR]

Both sides run in this process, one after the other in turn, early stop off, the same attention setting.
`ratio` has the scoring shortcuts on, `ratio_without_shortcuts` off. Measure on an otherwise idle machine.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from common import PAIRS, close, load_images, load_pair, matmul_gflops
from released import finetune_one
from torch.utils.flop_counter import FlopCounterMode

from main.seg_classification.finetuning import Settings, finetune
from models.losses import Objective

N_IMAGES = {"digits": 32, "vit_small": 4, "lite0": 8}
VARIANTS = ("pltx", "last", "best_loss")


def main() -> None:
    """Measures the pairs asked for and prints the closing line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--images-path", type=Path, help="photographs for lite0 and vit_small")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--slots", type=int, default=16)
    options = parser.parse_args()
    peak = matmul_gflops()
    print(f"{torch.get_num_threads()} threads, plain matrix product {peak:.0f} GFLOP/s in float32")
    close({f"{key}_float32": measure(key, options, peak) for key in options.pairs})


def measure(key: str, options, peak: float) -> dict:
    """Seconds per image of both sides in turn, and whether the masks are equal."""
    explainee, explainer = load_pair(key)
    images = load_images(key, N_IMAGES[key], options.images_path)
    with torch.no_grad():
        classes = explainee(images).argmax(1)

    def ours(shortcuts: bool):
        settings = Settings(n_steps=options.steps, slots=options.slots, shortcuts=shortcuts)
        return finetune(explainer, explainee, images, classes, classes, Objective(), settings)

    def released():
        return [finetune_one(explainer, explainee, image[None], options.steps) for image in images]

    work = {"released": released, "ours": lambda: ours(True), "ours_without_shortcuts": lambda: ours(False)}
    seconds = {name: [] for name in work}
    for _ in range(options.runs):
        for name, call in work.items():
            start = time.perf_counter()
            made = call()
            seconds[name].append(time.perf_counter() - start)
            if name == "released":
                plain = made
            else:
                masks, figures = made
    median = {name: statistics.median(values) / len(images) for name, values in seconds.items()}
    difference = max(
        (masks[variant][i] - one[variant]).abs().max().item()
        for variant in VARIANTS
        for i, one in enumerate(plain)
    )
    same = [
        int(one["pos"].argmin()) == int(step) for one, step in zip(plain, figures["best_step"], strict=True)
    ]
    with FlopCounterMode(display=False) as counter:
        finetune_one(explainer, explainee, images[:1], 1)
    gflop = counter.get_total_flops() * options.steps / 1e9
    result = {
        "ratio": median["released"] / median["ours"],
        "ratio_without_shortcuts": median["released"] / median["ours_without_shortcuts"],
        "equal": difference < 1e-5,
        "largest_mask_difference": difference,
        "same_step_by_pos": sum(same) / len(same),
        "images": len(images),
        "seconds_per_image": median,
        "gflop_per_image_released": gflop,
        "peak_fraction_released": gflop / median["released"] / peak,
        "peak_fraction_without_shortcuts": gflop / median["ours_without_shortcuts"] / peak,
    }
    for name, value in result.items():
        print(f"{key} {name}: {value}")
    return result


if __name__ == "__main__":
    main()
