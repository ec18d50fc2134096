"""What the benchmarks share: pairs, images, the released procedure, peak matmul rate, the closing line."""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from datasets.digits import DigitsOnPhotos
from datasets.imagenet import open_folder
from models.explainee import Explainee
from models.explainer import Explainer
from models.registry import create_model, input_spec

PAIRS = {"digits": "vit_digits", "vit_small": "vit_small_224", "lite0": "efficientnet_lite0"}


def load_pair(key: str) -> tuple[Explainee, Explainer]:
    """Explainee and pLTX explainer of a benchmark; ViT-Small has random weights (no download)."""
    torch.manual_seed(0)
    name = PAIRS[key]
    if key == "vit_small":
        explainee = Explainee(create_model(name), input_spec(create_model(name)), name)
    else:
        explainee = Explainee.from_name(name)
    return explainee, Explainer.for_explainee(name, explainee)


def load_images(key: str, n: int, photos: Path | None) -> torch.Tensor:
    """Images (n, 3, H, W): digits, photographs from `photos`, else digits enlarged."""
    size = (64, 64) if key == "digits" else (224, 224)
    if key != "digits" and photos is not None:
        images = open_folder(photos, size)
    else:
        images = DigitsOnPhotos("test", image_size=size)
    return torch.stack([images[i]["image"] for i in range(n)])


def matmul_gflops(dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """Rate of a plain square matrix product on this machine, in GFLOP/s: what "peak" means here."""
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    return 2 * size**3 / median_seconds(lambda: a @ b, runs=5) / 1e9


def median_seconds(work: Callable[[], object], runs: int = 3, warm_up: int = 1) -> float:
    """Median wall-clock seconds of `work`."""
    seconds = []
    for run in range(warm_up + runs):
        start = time.perf_counter()
        work()
        if run >= warm_up:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def close(results: dict) -> None:
    """Prints the closing line."""
    print(json.dumps({"results": results}))


def clone(explainer: Explainer) -> Explainer:
    """An independent copy."""
    return copy.deepcopy(explainer)
