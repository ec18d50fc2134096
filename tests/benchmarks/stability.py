"""Masks of the same photographs under other roundings: other numbers of threads, other instruction sets.

    python tests/benchmarks/stability.py --images-path DIR [--labels-path FILE --split tune] [--max-images 8]

Each environment is a process of its own: 1, 2 and 4 threads with all that the CPU has, then each of its
instruction sets with `--threads-of-sets` threads, for PyTorch (ATEN_CPU_CAPABILITY) and oneDNN
(ONEDNN_MAX_CPU_ISA) alike. For each pair of them the script prints the largest and the mean difference of a
token of `last`, and how many photographs have POS or NEG more than one step (5 points) apart. Flags that the
script does not know go to the options of `run_seg_cls_opt.py` (`--kink-width 0.3`).
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from runpy import run_path

import numpy as np
import torch

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

from ltx.datasets.build import stack
from ltx.datasets.imagenet import open_folder
from ltx.main.common import cli
from ltx.main.common.devices import speed_up
from ltx.main.perturbation_eval.curves import auc, removal_curve
from ltx.main.runs.build_models import load_explainee, pretrained_explainer, settled
from ltx.main.seg_classification.finetuning import finetune
from ltx.main.seg_classification.ltx_run import finetune_settings
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.explainee import Explainee, read_class
from ltx.models.losses import Objective
from ltx.models.masking import upsample

THREADS = (1, 2, 4)
SETS = {"default": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}  # PyTorch's name: oneDNN's
AIM = {"largest": 0.05, "mean": 0.005, "apart": 0}
_STEP = 5.0


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--images-path", type=Path, required=True, help="folder of photographs")
    flags.add_argument("--labels-path", type=Path, help="CSV of its labels")
    flags.add_argument("--split", help="only this split of the CSV")
    flags.add_argument("--max-images", type=int, default=8, help="number of photographs, the first ones")
    flags.add_argument("--model", default="efficientnet_lite0", help="alias of explainer and explainee")
    flags.add_argument("--recipe", default="ordered")
    flags.add_argument("--steps", type=int, help="steps per image (default: the recipe's)")
    flags.add_argument("--threads", type=int, nargs="+", default=THREADS, help="with the CPU's own set")
    flags.add_argument("--threads-of-sets", type=int, default=2, help="threads for each instruction set")
    flags.add_argument("--write", type=Path, help=argparse.SUPPRESS)  # a child: its masks go there
    return flags


def environments(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Environment variables by name of the environment."""
    found = {f"{n} threads": {"OMP_NUM_THREADS": str(n)} for n in options.threads}
    supported = torch.backends.cpu.get_cpu_capability().lower()
    known = list(SETS)[: list(SETS).index(supported) + 1] if supported in SETS else ["default"]
    for name in known:
        found[f"{name}, {options.threads_of_sets} threads"] = {
            "OMP_NUM_THREADS": str(options.threads_of_sets),
            "ATEN_CPU_CAPABILITY": name,
            "ONEDNN_MAX_CPU_ISA": SETS[name],
        }
    return found


def explain(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Masks `last` of the photographs, their POS and NEG, and seconds for each."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    flags = ["--recipe", options.recipe, "--explainee-model-name", options.model]
    flags += ["--explainer-model-name", options.model, "--select-best", "False"]
    if options.steps:
        flags += ["--n_epochs_to_optimize_stage_b", str(options.steps)]
    parsed = cli.parse(FinetuneOptions, [*flags, *options.more])
    explainee = load_explainee(parsed)
    explainer, path, _ = pretrained_explainer(parsed, explainee)
    parsed = settled(parsed, explainer)
    speed_up(parsed, explainee, explainer)
    photographs = open_folder(options.images_path, explainee.input_size, options.labels_path, options.split)
    images = stack(photographs, range(min(options.max_images, len(photographs))))
    # One at a time, so that rounding changes no class for the sake of its neighbours.
    classes = torch.cat([read_top(explainee, image[None]) for image in images])
    begin = time.perf_counter()
    masks, _ = finetune(
        explainer, explainee, images, classes, classes, Objective.from_options(parsed),
        finetune_settings(parsed, explainer, path),
    )  # fmt: skip
    seconds = (time.perf_counter() - begin) / len(images)
    scores = score(explainee, images, classes, masks["last"])
    return {"masks": masks["last"].numpy(), "classes": classes.numpy(), "seconds": np.array(seconds)} | scores


@torch.no_grad()
def read_top(explainee: Explainee, images: torch.Tensor) -> torch.Tensor:
    """Class on top of each image, (B,)."""
    return explainee(images).argmax(1)


def score(
    explainee: Explainee, images: torch.Tensor, classes: torch.Tensor, masks: torch.Tensor
) -> dict[str, np.ndarray]:
    """POS and NEG of each photograph."""
    maps, unmasked = upsample(masks, images.shape[-2:]), read_class(explainee, images, classes)
    return {
        name: auc(removal_curve(explainee, images, maps, classes, first, unmasked)[1]).numpy()
        for name, first in (("POS", True), ("NEG", False))
    }


def compare(one: dict, other: dict) -> dict[str, float]:
    """Differences between two environments."""
    difference = np.abs(one["masks"] - other["masks"])
    apart = sum((np.abs(one[name] - other[name]) > _STEP + 1e-6) for name in ("POS", "NEG")) > 0
    return {
        "largest": float(difference.max()),
        "mean": float(difference.mean()),
        "over_the_aim": int((difference.max((1, 2)) > AIM["largest"]).sum()),
        "apart": int(apart.sum()),
        "other_class": int((one["classes"] != other["classes"]).sum()),
    }


def run_child(variables: dict[str, str], file: Path) -> dict[str, np.ndarray]:
    """Result of `explain` in a process of its own with these environment variables."""
    # With more threads than free cores, those that spin while they wait take the time of those that work.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **variables}
    command = [sys.executable, __file__, *sys.argv[1:], "--write", str(file)]
    subprocess.run(command, check=True, env=environment)
    with np.load(file) as stored:
        return dict(stored)


def main() -> None:
    """Run the environments one after the other; print the table of pairs and the closing line."""
    options, more = parser().parse_known_args()
    options.more = more
    if options.write:
        np.savez(options.write, **explain(options))
        return
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, variables in environments(options).items():
            made[name] = found = run_child(variables, Path(folder) / "masks.npz")
            print(
                f"{name}: POS {found['POS'].mean():.2f}, NEG {found['NEG'].mean():.2f}, "
                f"{found['seconds']:.2f} s each",
                flush=True,
            )
    pairs = {
        f"{one} / {other}": compare(made[one], made[other]) for one, other in itertools.combinations(made, 2)
    }
    print("\n| environments | largest | mean | photographs over 0.05 | POS or NEG apart | other class |")
    print("|---|---|---|---|---|---|")
    for name, found in pairs.items():
        print(
            f"| {name} | {found['largest']:.4f} | {found['mean']:.5f} | {found['over_the_aim']} | "
            f"{found['apart']} | {found['other_class']} |"
        )
    worst = {key: max(found[key] for found in pairs.values()) for key in AIM}
    reached = all(worst[key] <= aim for key, aim in AIM.items())
    n = len(next(iter(made.values()))["masks"])
    print(json.dumps({"images": n, "worst": worst, "aim_reached": reached, "pairs": pairs}))


if __name__ == "__main__":
    main()
