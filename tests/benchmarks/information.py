"""AIC and SIC against PAIR's `saliency` package: seconds per map, equal values.

    python tests/benchmarks/information.py --images-path DIR --images 3

The package (pip install saliency) computes each metric by itself and triangulates each colour by itself; ours
shares the steps and leaves out those that cannot move a curve. Both sides in turn in one process, with the
same explainee, the same seed pixels and two maps per image: the pLTX mask and the gradient times the input.
Wall-clock seconds, and CPU seconds of all threads, which say more on a busy machine.
"""

import time
from functools import partial

import numpy as np
import torch
from common import close, load_case, parser, show, start
from torch import Tensor

from ltx.main.common.devices import default_batch
from ltx.main.perturbation_eval.information import LEVELS, seed_mask
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import choose_metrics
from ltx.models.explainee import Explainee, read_class
from ltx.models.explainer import Explainer
from ltx.models.masking import upsample

METRICS = choose_metrics("AIC,SIC")
TOLERANCE = 1e-3  # of an area in [0, 1]


def main() -> None:
    """Measures the pairs asked for and prints the closing line."""
    flags = parser(__doc__)
    flags.set_defaults(pairs=["lite0"], runs=1)
    flags.add_argument("--images", type=int, default=3, help="images, two maps each")
    options = flags.parse_args()
    start(options)
    close({key: measure(key, options) for key in options.pairs})


def measure(key: str, options) -> dict:
    """Both sides on one pair."""
    explainee, explainer, images, _, classes = load_case(key, options, options.images)
    explainee.speed_up()
    names = [str(i) for i in range(len(images))]
    seconds, found = {"package": [], "ours": []}, {"package": [], "ours": []}
    for saliency in both_maps(explainee, explainer, images, classes):
        for name, work in (("package", package_values), ("ours", our_values)):
            before = time.perf_counter(), time.process_time()
            found[name].append(work(explainee, images, saliency, classes, names))
            seconds[name].append((time.perf_counter() - before[0], time.process_time() - before[1]))
    theirs, ours = (np.concatenate(found[name]) for name in ("package", "ours"))
    per_map = {name: np.sum(values, axis=0) / len(theirs) for name, values in seconds.items()}
    counted = np.isfinite(theirs)
    difference = np.abs(ours - theirs)[counted].max(initial=0.0)
    result = {
        "ratio": per_map["package"][1] / per_map["ours"][1],
        "equal": bool(difference < TOLERANCE and (counted == np.isfinite(ours)).all()),
        "largest_difference": float(difference),
        "maps": len(theirs),
        "counted": int(counted.sum()),
        "wall_seconds_per_map": {name: float(values[0]) for name, values in per_map.items()},
        "cpu_seconds_per_map": {name: float(values[1]) for name, values in per_map.items()},
    }
    return show(key, result)


def both_maps(explainee: Explainee, explainer: Explainer, images: Tensor, classes: Tensor) -> list[Tensor]:
    """The pLTX mask and the gradient times the input, (B, H, W) each."""
    with torch.no_grad():
        masks = upsample(explainer(images), images.shape[-2:])[:, 0]
    pixels = images.clone().requires_grad_(True)
    explainee(pixels).gather(1, classes[:, None]).sum().backward()
    return [masks, (pixels.grad * images).abs().sum(1)]


def our_values(explainee, images: Tensor, saliency: Tensor, classes: Tensor, names: list[str]) -> np.ndarray:
    """AIC and SIC (B, 2) as areas in [0, 1], NaN for an image that does not count."""
    batch = ImageBatch(explainee, images, classes, batch_size=default_batch(images.device), names=names)
    view = MapView(batch, saliency, saliency)
    return np.stack([metric.per_image(view).numpy() / 100 for metric in METRICS], 1)


def package_values(
    explainee, images: Tensor, saliency: Tensor, classes: Tensor, names: list[str]
) -> np.ndarray:
    """The same by the package."""
    np.trapz = np.trapezoid  # the package's name for it, which NumPy 2.4 no longer has
    from saliency.metrics import pic

    values = np.full((len(images), len(METRICS)), np.nan)
    for i, image in enumerate(images):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        seeds = seed_mask(pixels.shape[:2], names[i])
        for m, metric in enumerate(METRICS):
            predict = partial(_predict, explainee, classes[i : i + 1], metric.accuracy)
            try:
                values[i, m] = pic.compute_pic_metric(
                    pixels, saliency[i].numpy(), seeds, predict, LEVELS, min_pred_value=0.8
                ).auc
            except pic.ComputePicMetricError:
                continue
    return values


def _predict(explainee, target: Tensor, accuracy: bool, pixels: np.ndarray) -> np.ndarray:
    """What the package asks for: probability or correctness (N,) of images (N, H, W, 3) of bytes."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return read_class(explainee, images, target.expand(len(images)))[accuracy].numpy()


if __name__ == "__main__":
    main()
