"""Images per second and peak memory on one CUDA device, each beside the plain released procedure.

    python tests/benchmarks/cuda_device.py                 # the table, within 12 minutes on one card
    python tests/benchmarks/cuda_device.py --smoke         # a tiny model on the CPU: does it run?

(A script called `cuda.py` would hide NVIDIA's package of that name from PyTorch.)

Rows are methods, columns batch sizes: LTX as released and as `ordered`, pLTX, the evaluator (POS, NEG, DEL,
INS, ADP, PIC of one map), Grad-CAM and RISE (4,000 masks), for ViT-Base, ViT-Small, ResNet-101 and
EfficientNet-Lite0 with random weights on noise. The plain procedure is that of `released.py`, one image at a
time; it and RISE are timed on a part of their work and scaled. Each cell has a share of `--minutes`; what
does not fit in memory is empty. Prints the table as Markdown, with the hours that 50,000 images take, and a
closing line of JSON.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

import torch
from torch import Tensor

from ltx.main.baselines.base import Batch
from ltx.main.baselines.methods import BASELINES
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common.memory import is_out_of_memory
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import choose_metrics
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.losses import Objective
from ltx.models.registry import create_model, input_spec
from ltx.tests.benchmarks.common import close
from ltx.tests.benchmarks.released import finetune_one

MODELS = ("vit_base_224", "vit_small_224", "resnet", "efficientnet_lite0")
SMOKE_MODELS = ("vit_digits",)
BATCHES = (1, 8, 32, 128)
STEPS, RISE_MASKS, N_PROJECTED = 25, 4000, 50_000
PLAIN = "LTX released, plain"
METRICS = choose_metrics("POS,NEG,DEL,INS,ADP,PIC")


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        rate: images per second.
        memory: bytes at the peak, 0 where the device does not say.
    """

    rate: float
    memory: int

    @property
    def hours(self) -> float:
        """Hours that 50,000 images take."""
        return N_PROJECTED / self.rate / 3600


def main() -> None:
    """Measures all cells, prints the table and the closing line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--models", nargs="+", help=f"aliases (default: {' '.join(MODELS)})")
    flags.add_argument("--batches", nargs="+", type=int, help=f"batch sizes (default: {BATCHES})")
    flags.add_argument("--minutes", type=float, default=10.0, help="time of all measurements together")
    flags.add_argument("--precision", default="bf16", choices=("float32", "bf16"), help="of our side")
    flags.add_argument("--compile", action="store_true", help="torch.compile the explainee on our side")
    flags.add_argument("--smoke", action="store_true", help="a tiny model on the CPU")
    options = flags.parse_args()
    if not options.smoke and not torch.cuda.is_available():
        flags.error("no CUDA device; --smoke runs a tiny model on the CPU")
    options.models = options.models or (SMOKE_MODELS if options.smoke else MODELS)
    options.batches = options.batches or ([1, 2] if options.smoke else BATCHES)
    options.device = torch.device("cpu" if options.smoke else "cuda")
    options.steps, options.rise_masks = (2, 8) if options.smoke else (STEPS, RISE_MASKS // 20)
    where = "CPU" if options.smoke else torch.cuda.get_device_name()
    print(f"{where}, PyTorch {torch.__version__}, {options.precision}; plain side float32\n")
    results = {name: measure(name, options) for name in options.models}
    print(table(results, options.batches))
    close({"device": where, **{name: as_numbers(cells) for name, cells in results.items()}})


def measure(name: str, options) -> dict[str, dict[int, Cell]]:
    """All cells of one model: method to batch size to `Cell`."""
    torch.manual_seed(0)
    model = create_model(name)
    plain = Explainee(model, input_spec(model), name).to(options.device)
    explainer = Explainer.for_explainee(name, plain).to(options.device)
    found: dict[str, dict[int, Cell]] = {}
    work = {PLAIN: plain_work(plain, explainer, options)}
    explainee = Explainee(model, plain.spec, name)._fold().to(options.device)
    explainee.speed_up(options.precision, options.compile)
    explainer.precision = options.precision
    work |= our_work(explainee, explainer, options)
    share = 60 * options.minutes / len(options.models) / (len(work) * len(options.batches))
    for method, call in work.items():
        sizes = options.batches[:1] if method == PLAIN else options.batches
        cells = {n: timed(call, n, plain.input_size, options.device, share) for n in sizes}
        found[method] = {n: cell for n, cell in cells.items() if cell is not None}
    return found


def plain_work(explainee: Explainee, explainer: Explainer, options) -> Callable[[Tensor, Tensor], float]:
    """The released procedure image by image, on few steps; returns the share of the steps that were made."""
    steps = max(1, options.steps // 10)
    explainer.precision = "float32"

    def call(images: Tensor, classes: Tensor) -> float:
        explainer.precision, before = "float32", explainer.precision
        for image in images.split(1):
            finetune_one(explainer, explainee, image, steps)
        explainer.precision = before
        return steps / options.steps

    return call


def our_work(explainee: Explainee, explainer: Explainer, options) -> dict[str, Callable]:
    """Our side by method: images and classes to the share of the work that was done."""
    released = Settings(n_steps=options.steps, lr=5e-5)
    ordered = Settings(n_steps=options.steps, lr=5e-4, decay=True, kink_width=0.3, select=False)
    baseline = BaselineOptions(method="rise", rise_masks=options.rise_masks)

    def ltx(settings: Settings, objective: Objective) -> Callable:
        def call(images: Tensor, classes: Tensor) -> float:
            at_once = Settings(**{**vars(settings), "slots": len(images)})
            finetune(explainer, explainee, images, classes, classes, objective, at_once)
            return 1.0

        return call

    def evaluator(images: Tensor, classes: Tensor) -> float:
        maps = torch.rand(len(images), *images.shape[-2:], device=images.device)
        view = MapView(ImageBatch(explainee, images, classes, batch_size=256), maps, maps)
        for metric in METRICS:
            metric.per_image(view).cpu()
        return 1.0

    def of_baseline(method: str, share: float) -> Callable:
        def call(images: Tensor, classes: Tensor) -> float:
            names = [str(i) for i in range(len(images))]
            BASELINES[method].compute(explainee, Batch(images, classes, names), baseline)
            return share

        return call

    def forward(images: Tensor, classes: Tensor) -> float:
        pltx(explainer, images, batch_size=len(images))
        return 1.0

    found = {
        "LTX released": ltx(released, Objective()),
        "LTX ordered": ltx(ordered, Objective(order_loss_mul=1.0)),
        "pLTX": forward,
        "evaluator": evaluator,
        "RISE": of_baseline("rise", options.rise_masks / RISE_MASKS),
    }
    if find_spec("pytorch_grad_cam"):
        found["Grad-CAM"] = of_baseline("grad_cam", 1.0)
    return found


def timed(call: Callable, n: int, size: tuple[int, int], device: torch.device, share: float) -> Cell | None:
    """Rate and memory of a call on n images, repeated within `share` seconds; None where memory runs out."""
    images = torch.rand(n, 3, *size, device=device)
    classes = torch.zeros(n, dtype=torch.long, device=device)
    try:
        begin = time.perf_counter()
        waited(call, images, classes, device)  # the first call loads libraries and chooses kernels
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        first, runs, done = time.perf_counter() - begin, 0, 0.0
        begin = time.perf_counter()
        while runs == 0 or time.perf_counter() - begin + first < share:
            done += waited(call, images, classes, device)
            runs += 1
        seconds = time.perf_counter() - begin
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        return None
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return Cell(done * n / seconds, memory)


def waited(call: Callable, images: Tensor, classes: Tensor, device: torch.device) -> float:
    """A call to its end on the device."""
    done = call(images, classes)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return done


def table(results: dict[str, dict[str, dict[int, Cell]]], batches) -> str:
    """Markdown: images per second (peak memory in GB) by batch size, times the plain rate, and hours."""
    head = ["model", "method", *(f"batch {n}" for n in batches), "times plain", "hours for 50,000"]
    lines = [head, ["---"] * len(head)]
    for name, methods in results.items():
        plain = max((cell.rate for cell in methods[PLAIN].values()), default=float("nan"))
        for method, cells in methods.items():
            found = [f"{c.rate:.3g} ({c.memory / 1e9:.1f})" if (c := cells.get(n)) else "" for n in batches]
            best = max(cells.values(), key=lambda cell: cell.rate, default=None)
            ratio = f"{best.rate / plain:.2f}" if best and method.startswith("LTX") else ""
            lines.append([name, method, *found, ratio, f"{best.hours:.3g}" if best else ""])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_numbers(methods: dict[str, dict[int, Cell]]) -> dict:
    """The cells for the closing line."""
    return {
        method: {str(n): {"images_per_second": c.rate, "peak_bytes": c.memory} for n, c in cells.items()}
        for method, cells in methods.items()
    }


if __name__ == "__main__":
    main()
