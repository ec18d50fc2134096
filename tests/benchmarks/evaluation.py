"""The perturbation evaluator against one pass per removal step: maps per second, equal results.

    python tests/benchmarks/evaluation.py [--pairs digits] [--images-path DIR]

The plain side takes one image at a time and one pass per step: the image, the image times its map (as it is
and scaled), ten removals from the most salient pixel on and ten from the least: POS, NEG, DEL, INS, ADP, PIC
and their scaled variants. Ours is `MapView` with the same metrics. Both sides in turn, same threads. The
plain side computes in float32 with the explainee as published; `ratio_same_explainee` lets it use ours.
"""

from functools import partial

import torch
from common import (
    gflop,
    in_precision,
    in_turn,
    load_case,
    parser,
    run,
    show,
)
from torch import Tensor

from ltx.main.common.devices import default_batch
from ltx.main.perturbation_eval.map_view import ImageBatch, MapView
from ltx.main.perturbation_eval.metrics import choose_metrics
from ltx.models.masking import min_max, upsample

N_IMAGES = {"digits": 64, "vit_small": 4, "lite0": 8}
METRICS = choose_metrics("POS,NEG,DEL,INS,ADP,PIC,ADP_minmax,PIC_minmax")
TOLERANCE = 1e-3  # of percentages; single readings of a class may flip at near-ties only


def main() -> None:
    """Measures the pairs asked for and prints the closing line."""
    flags = parser(__doc__)
    flags.add_argument("--images", type=int, help=f"images, one map each (default: {N_IMAGES})")
    flags.add_argument("--batch-size", type=int, default=None, help="images through our explainee at once")
    run(flags, measure)


def measure(key: str, options, peaks: dict[str, float]) -> dict[str, dict]:
    """Both precisions of one pair against one pass per step, in turn."""
    n_images = options.images or N_IMAGES[key]
    explainee, explainer, images, plain, classes = load_case(key, options, n_images)
    with torch.no_grad():
        maps = upsample(explainer(images), images.shape[-2:])[:, 0]
    work = {"plain": partial(plain_scores, plain, images, maps, classes)}
    fast = in_precision(explainee, "float32")
    if fast.runs_folded:
        work["plain_same_explainee"] = partial(plain_scores, fast, images, maps, classes)
    for precision in options.precisions:
        work[precision] = partial(
            our_scores, in_precision(explainee, precision), images, maps, classes, options.batch_size
        )
    seconds, made = in_turn(work, options.runs)
    flops = {
        name: gflop(partial(function, explainee, images[:2], maps[:2], classes[:2])) / 2
        for name, function in (("plain", plain_scores), ("ours", our_scores))
    }
    found = {}
    for precision in options.precisions:
        each = {name: seconds[name] / len(images) for name in seconds}
        difference = (made[precision] - made["plain"]).abs()
        result = {
            "ratio": each["plain"] / each[precision],
            "equal": bool(difference.max() < TOLERANCE),
            "largest_difference": difference.max().item(),
            "images": len(images),
            "seconds_per_map": {"plain": each["plain"], "ours": each[precision]},
            "gflop_per_map": flops,
            "peak_fraction_plain": flops["plain"] / each["plain"] / peaks["float32"],
            "peak_fraction": flops["ours"] / each[precision] / peaks[precision],
        }
        if "plain_same_explainee" in each:
            result["ratio_same_explainee"] = each["plain_same_explainee"] / each[precision]
        if precision != "float32":
            means = zip(METRICS, made["plain"].mean(1), made[precision].mean(1), strict=True)
            result["effect"] = {m.name: {"float32": a.item(), precision: b.item()} for m, a, b in means}
        found[f"{key}_{precision}"] = show(f"{key}_{precision}", result)
    return found


@torch.no_grad()
def plain_scores(explainee, images: Tensor, maps: Tensor, classes: Tensor) -> Tensor:
    """Metrics (8, B) as in `METRICS`, written plainly, one image and one pass at a time."""
    return torch.stack(
        [_plain_one(explainee, *one) for one in zip(images.split(1), maps, classes.tolist(), strict=True)], 1
    )


def _plain_one(explainee, image: Tensor, saliency: Tensor, target: int) -> Tensor:
    def read(shown: Tensor) -> tuple[float, float]:
        logits = explainee(shown)[0]
        return logits.softmax(0)[target].item(), float(logits.argmax() == target)

    p, shown, scaled = read(image)[0], read(image * saliency)[0], read(image * min_max(saliency[None]))[0]
    areas = []
    for order in (-saliency.flatten(), saliency.flatten()):
        order, readings = torch.sort(order, stable=True).indices, []
        for step in range(10):
            perturbed = image.clone().flatten(2)
            perturbed[:, :, order[: step * len(order) // 10]] = 0
            readings.append(read(perturbed.view_as(image)))
        areas.append([10 * (sum(r) - (r[0] + r[-1]) / 2) for r in zip(*readings, strict=True)])
    (deletion, pos), (insertion, neg) = areas
    drops = [100 * max(0.0, p - other) / p for other in (shown, scaled)]
    rises = [100.0 * (other > p) for other in (shown, scaled)]
    return torch.tensor(
        [pos, neg, deletion, insertion, drops[0], rises[0], drops[1], rises[1]], dtype=torch.float64
    )


@torch.no_grad()
def our_scores(
    explainee, images: Tensor, maps: Tensor, classes: Tensor, batch_size: int | None = None
) -> Tensor:
    """The same by the evaluator's own view and metrics, in batches of its size."""
    batch_size, found = batch_size or default_batch(images.device), []
    for part in zip(*(values.split(batch_size // 4) for values in (images, classes, maps)), strict=True):
        pixels, target, saliency = part
        view = MapView(ImageBatch(explainee, pixels, target, batch_size=batch_size), saliency, saliency)
        found.append(torch.stack([metric.per_image(view).double() for metric in METRICS]))
    return torch.cat(found, 1)


if __name__ == "__main__":
    main()
