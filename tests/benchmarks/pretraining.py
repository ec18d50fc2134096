"""pLTX pretraining: images per second in float32 and bf16, and where the time goes.

    python tests/benchmarks/pretraining.py [--pairs digits] [--images-path DIR]

`ratio` is against a plain training loop (images read in the process, the explainee as published, float32),
which takes the same steps: explainee on the images, explainer, masked pass, backward, AdamW. `split` is
measured in a run of its own, part by part; `data` is the time that the loop waits for images.
"""

import copy
import time
from collections import defaultdict
from functools import partial

import torch
from common import (
    PlainExplainee,
    gflop,
    in_precision,
    in_turn,
    load_pair,
    open_images,
    parser,
    run,
    show,
)

from ltx.datasets.build import batches
from ltx.models.losses import Objective

N_IMAGES = {"digits": 256, "vit_small": 24, "lite0": 64}
BATCH = {"digits": 32, "vit_small": 8, "lite0": 16}
LR = 1e-4


def main() -> None:
    """Measures the pairs asked for and prints the closing line."""
    flags = parser(__doc__)
    flags.add_argument("--images", type=int, help=f"images (default: {N_IMAGES})")
    flags.add_argument("--batch-size", type=int, help=f"images per step (default: {BATCH})")
    flags.add_argument("--num-workers", type=int, default=1, help="processes that read images, ours")
    run(flags, measure)


def measure(key: str, options, peaks: dict[str, float]) -> dict[str, dict]:
    """Both precisions of one pair against the plain loop, in turn."""
    explainee, explainer = load_pair(key)
    images = open_images(key, options.images_path, "train")
    n, batch_size = options.images or N_IMAGES[key], options.batch_size or BATCH[key]
    chosen = list(range(n))
    models = {p: (in_precision(explainer, p), in_precision(explainee, p)) for p in options.precisions}

    def ours(precision: str, clock=None):
        own, frozen = models[precision]
        loader = batches(images, chosen, batch_size, options.num_workers)
        return train(copy.deepcopy(own), frozen, loader, clock, fused=True)

    plain = partial(train, fused=False)
    work = {
        "plain": lambda: plain(
            copy.deepcopy(explainer), PlainExplainee(explainee), batches(images, chosen, batch_size, 0)
        )
    }
    work |= {precision: partial(ours, precision) for precision in options.precisions}
    seconds, made = in_turn(work, options.runs)
    first = next(batches(images, chosen[:2], 2))
    flops = gflop(lambda: plain(copy.deepcopy(explainer), PlainExplainee(explainee), [first])) / 2
    found = {}
    for precision in options.precisions:
        clock = Clock()
        ours(precision, clock)
        rate = n / seconds[precision]
        difference = max(abs(a - b) / abs(b) for a, b in zip(made[precision], made["plain"], strict=True))
        result = {
            "images_per_second": rate,
            "ratio": seconds["plain"] / seconds[precision],
            "equal": difference < 1e-4,
            "largest_relative_loss_difference": difference,
            "split": clock.shares(),
            "gflop_per_image": flops,
            "peak_fraction": flops * rate / peaks[precision],
            "images": n,
            "batch_size": batch_size,
        }
        found[f"{key}_{precision}"] = show(f"{key}_{precision}", result)
    return found


class Clock:
    """Seconds by part: what has passed since the last call goes to the part that is named."""

    def __init__(self):
        self.seconds, self.last = defaultdict(float), time.perf_counter()

    def part(self, name: str) -> None:
        """Ends a part."""
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now

    def shares(self) -> dict[str, float]:
        """Share of each part."""
        total = sum(self.seconds.values())
        return {name: value / total for name, value in self.seconds.items()}


def train(explainer, explainee, loader, clock: Clock | None = None, fused: bool = False) -> list[float]:
    """Losses of one epoch's steps."""
    clock, losses = clock or Clock(), []
    optimizer = torch.optim.AdamW(explainer.trainable().values(), lr=LR, weight_decay=0.01, fused=fused)
    for data in loader:
        clock.part("data")
        with torch.no_grad():
            classes = explainee(data["image"]).argmax(1)
        clock.part("explainee")
        masks = explainer(data["image"])
        clock.part("explainer")
        # The gradient reaches the masks when the explainee's backward pass is over.
        masks.register_hook(lambda gradient: clock.part("explainee"))
        loss = Objective()(explainee, data["image"], masks, classes)["loss"].mean()
        clock.part("explainee")
        optimizer.zero_grad()
        loss.backward()
        clock.part("explainer")
        optimizer.step()
        clock.part("optimiser")
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main()
