"""Resident memory stays flat: many digits through LTX and the evaluation, one process.

    python tests/benchmarks/memory.py [--images 2000] [--steps 3] [--after 200]

Runs LTX and the evaluator on the digits pair, mask file after mask file, and prints the resident memory after
the first `--after` images and at the end; `grows_by_percent` is the difference. Few steps per image make it a
matter of minutes and change nothing about what is kept between images. Linux only (/proc).
"""

import argparse
import json
import tempfile
from pathlib import Path

from common import close, show

from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.perturbation_eval.evaluator import evaluate
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.perturbation_eval.unit_scorer import UnitScorer
from ltx.main.runs.build_models import load_explainee
from ltx.main.runs.mask_job import MaskJob
from ltx.main.seg_classification.ltx_run import ltx_method
from ltx.main.seg_classification.options import FinetuneOptions


def main() -> None:
    """Measures and prints the closing line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images", type=int, default=2000)
    flags.add_argument("--steps", type=int, default=3, help="LTX steps per image (the default run takes 25)")
    flags.add_argument("--after", type=int, default=200, help="images before the first reading")
    asked = flags.parse_args()
    print(f"{asked.images} digits, {asked.steps} steps per image instead of 25, then POS and NEG")
    readings: dict[str, list[float]] = {"ltx": [], "evaluation": []}
    watch(MaskJob, "_make", readings["ltx"])
    watch(UnitScorer, "score", readings["evaluation"])
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "run", asked)
    results = {}
    for name, values in readings.items():
        first, last = values[0], values[-1]
        results[f"memory_{name}"] = show(
            f"memory_{name}",
            {
                f"rss_mb_after_{asked.after}": first,
                "rss_mb_at_the_end": last,
                "grows_by_percent": 100 * (last / first - 1),
                "flat": last < 1.05 * first,
                "images": asked.images,
                "steps": asked.steps,
            },
        )
    print(json.dumps({name: [round(value) for value in values] for name, values in readings.items()}))
    close(results)


def run(folder: Path, asked: argparse.Namespace) -> None:
    """LTX in mask files of `--after` images each, then the evaluation of each."""
    options = FinetuneOptions(
        explainee_model_name="vit_digits",
        images_path="digits",
        n_epochs_to_optimize_stage_b=asked.steps,
        unit_size=asked.after,
        num_workers=0,
        device="cpu",
    )
    images = DigitsOnPhotos("train", asked.images, (64, 64))
    job = MaskJob(folder, options, load_explainee(options), images, range(asked.images))
    job.fill(ltx_method(job))
    evaluate(PerturbationOptions(run_folder=folder, metrics="POS,NEG", device="cpu", num_workers=0))


def watch(place, name: str, readings: list[float]) -> None:
    """Reads the resident memory after each call of a function."""
    function = getattr(place, name)

    def watched(*arguments, **named):
        result = function(*arguments, **named)
        readings.append(resident_mb())
        return result

    setattr(place, name, watched)


def resident_mb() -> float:
    """Resident memory of this process."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
