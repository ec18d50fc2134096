"""What the benchmarks share: pairs, images, peak matmul rate, timing in turn, the closing line."""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ltx.datasets.base import ImageSet
from ltx.datasets.build import stack
from ltx.datasets.digits import DigitsOnPhotos
from ltx.datasets.imagenet import open_folder
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import BEST_FILE, read_explainer
from ltx.models.registry import create_model, input_spec, pair_folder

PAIRS = {"digits": "vit_digits", "vit_small": "vit_small_224", "lite0": "efficientnet_lite0"}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def parser(doc: str) -> argparse.ArgumentParser:
    """Flags of every benchmark."""
    flags = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    flags.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    flags.add_argument("--images-path", type=Path, help="photographs for lite0 and vit_small")
    flags.add_argument("--runs", type=int, default=3, help="repetitions; medians are reported")
    flags.add_argument("--threads", type=int, default=None, help="threads of both sides (default: all)")
    return flags


def run(flags: argparse.ArgumentParser, measure: Callable[..., dict[str, dict]]) -> None:
    """Measures the pairs asked for, by `measure(key, options, peaks)`, and prints the closing line."""
    options = flags.parse_args()
    peaks, results = start(options), {}
    for key in options.pairs:
        results |= measure(key, options, peaks)
    close(results)


def load_case(key: str, options, n: int) -> tuple[Explainee, Explainer, Tensor, nn.Module, Tensor]:
    """A pair, n images (n, 3, H, W), the explainee as published, and the predicted classes (n,)."""
    explainee, explainer = load_pair(key)
    images = stack(open_images(key, options.images_path), range(n))
    with torch.no_grad():
        classes = explainee(images).argmax(1)
    return explainee, explainer, images, PlainExplainee(explainee), classes


def start(options) -> dict[str, float]:
    """Sets the threads; prints and returns the peak rate by precision, in GFLOP/s."""
    if options.threads:
        torch.set_num_threads(options.threads)
    peaks = {name: matmul_gflops(DTYPES[name]) for name in DTYPES}
    text = ", ".join(f"{peak:.0f} GFLOP/s in {name}" for name, peak in peaks.items())
    print(f"{torch.get_num_threads()} threads, plain matrix product {text}")
    return peaks


def load_pair(key: str) -> tuple[Explainee, Explainer]:
    """Explainee and pLTX explainer of a benchmark; ViT-Small has random weights (no download)."""
    torch.manual_seed(0)
    name = PAIRS[key]
    if key == "vit_small":
        model = create_model(name)
        explainee = Explainee(model, input_spec(model), name)
    else:
        explainee = Explainee.from_name(name)
    trained = pair_folder(name, name) / "predicted" / BEST_FILE
    if trained.is_file():
        return explainee, read_explainer(trained)
    return explainee, Explainer.for_explainee(name, explainee)


def in_precision(module: nn.Module, precision: str) -> nn.Module:
    """A copy of an explainee (sped up, as a run does) or of an explainer, in a precision."""
    module = copy.deepcopy(module)
    module.precision = precision
    return module.speed_up(precision) if isinstance(module, Explainee) else module


class PlainExplainee(nn.Module):
    """An explainee as it is published: normalisation and the model, no batch norm folded, usual layout."""

    def __init__(self, explainee: Explainee):
        super().__init__()
        self.model, self.mean, self.std = explainee.model, explainee.mean, explainee.std

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - self.mean) / self.std)


def open_images(key: str, photos: Path | None, split: str = "test") -> ImageSet:
    """Digits of a split, photographs from `photos`, else digits enlarged."""
    size = (64, 64) if key == "digits" else (224, 224)
    if key != "digits" and photos is not None:
        return open_folder(photos, size)
    return DigitsOnPhotos(split, image_size=size)


def matmul_gflops(dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """Rate of a plain square matrix product on this machine, in GFLOP/s: what "peak" means here."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2 * size**3 / median_seconds(lambda: a @ b, runs=7) / 1e9


def median_seconds(work: Callable[[], object], runs: int = 3, warm_up: int = 1) -> float:
    """Median wall-clock seconds of `work`."""
    seconds = []
    for run in range(warm_up + runs):
        start = time.perf_counter()
        work()
        if run >= warm_up:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def in_turn(work: dict[str, Callable[[], object]], runs: int) -> tuple[dict[str, float], dict[str, object]]:
    """Median seconds of several pieces of work, one after the other in each of the runs, and what they made.

    In turn, so that whatever slows the machine for a while slows all of them.
    """
    seconds, made = {name: [] for name in work}, {}
    for run in range(runs):
        for name, call in work.items():
            begin = time.perf_counter()
            made[name] = call()
            seconds[name].append(time.perf_counter() - begin)
            print(f"  run {run + 1}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr)
    return {name: statistics.median(values) for name, values in seconds.items()}, made


def gflop(work: Callable[[], object]) -> float:
    """Matrix products and convolutions of `work`, in GFLOP."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def show(key: str, result: dict) -> dict:
    """Prints a result line by line and returns it rounded for the closing line."""
    for name, value in result.items():
        print(f"{key} {name}: {_rounded(value)}")
    return _rounded(result)


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def close(results: dict) -> None:
    """Prints the closing line."""
    print(json.dumps({"results": results}))
