"""LTX side by side against the released procedure: images per second, equal masks.

    python tests/benchmarks/finetuning.py [--pairs digits lite0] [--images-path DIR] [--steps 25]

All sides run in this process, in turn, early stop off, with the same threads and the same attention.
`ratio` has the scoring shortcuts on; `ratio_without_shortcuts` scores every step of every image in full.
The released procedure computes in float32 in both rows. `ratio_same_explainee` lets it use our explainee
(batch norm folded, channels-last, linear layers by oneDNN) instead of the plain one. `equal` (to 1e-5)
compares with that one too: AdamW's first steps are the rate times the sign of a gradient, so where a
gradient is near zero the rounding of another explainee decides; `largest_difference_to_plain_explainee`
tells. Measure on an idle machine.
"""

import copy
from functools import partial

from common import (
    gflop,
    in_precision,
    in_turn,
    load_case,
    parser,
    run,
    show,
)
from released import finetune_one
from torch import Tensor

from ltx.main.api import TRAINED
from ltx.main.perturbation_eval.curves import auc, removal_curve
from ltx.main.seg_classification.finetuning import Settings, finetune
from ltx.main.seg_classification.step_scorer import STOP_POS
from ltx.models.explainee import read_class
from ltx.models.losses import Objective
from ltx.models.masking import upsample

N_IMAGES = {"digits": 32, "vit_small": 4, "lite0": 8}
# Every step costs the same on both sides, so the large pairs need not take all 25.
STEPS = {"digits": 25, "vit_small": 6, "lite0": 12}
VARIANTS = ("pltx", "last", "best_loss")


def main() -> None:
    """Measures the pairs asked for and prints the closing line."""
    flags = parser(__doc__)
    flags.add_argument("--steps", type=int, help=f"steps per image (default: {STEPS})")
    flags.add_argument("--images", type=int, help=f"images (default: {N_IMAGES})")
    flags.add_argument("--slots", type=int, default=16, help="images side by side")
    flags.add_argument("--loops", action="store_true", help="also compare vmap with a loop over the slots")
    run(flags, measure)


def measure(key: str, options, peaks: dict[str, float]) -> dict[str, dict]:
    """Both precisions of one pair against the released procedure, in turn."""
    n_images = options.images or N_IMAGES[key]
    explainee, explainer, images, plain, classes = load_case(key, options, n_images)
    steps = options.steps or STEPS[key]
    models = {
        precision: (in_precision(explainer, precision), in_precision(explainee, precision))
        for precision in ("float32", *options.precisions)
    }

    def ours(precision: str, **changes):
        settings = Settings(n_steps=steps, lr=TRAINED.lr, slots=options.slots, **changes)
        return finetune(*models[precision], images, classes, classes, Objective(), settings)

    def other_loop(precision: str):
        own, frozen = copy.deepcopy(models[precision][0]), models[precision][1]
        own.channels_last = False  # vmap has no such layout
        settings = Settings(
            n_steps=steps, lr=TRAINED.lr, slots=options.slots, select=False, use_vmap=not explainer.has_tokens
        )
        return finetune(own, frozen, images, classes, classes, Objective(), settings)

    def flops_of(n_steps):
        few, settings = images[:2], Settings(n_steps=n_steps, lr=TRAINED.lr, **in_full)
        return gflop(
            lambda: finetune(explainer, explainee, few, classes[:2], classes[:2], Objective(), settings)
        )

    def released(model):
        return [finetune_one(explainer, model, image[None], steps) for image in images]

    in_full = {"shortcuts": False, "stop_scoring": False}
    work = {"released": lambda: released(plain)}
    if models["float32"][1].runs_folded:
        work["released_same_explainee"] = lambda: released(models["float32"][1])
    for precision in options.precisions:
        work |= {
            f"{precision} ours": lambda p=precision: ours(p),
            f"{precision} without_shortcuts": lambda p=precision: ours(p, **in_full),
            f"{precision} without_scoring": lambda p=precision: ours(p, select=False),
        }
        if options.loops:
            work[f"{precision} other_loop"] = partial(other_loop, precision)
    seconds, made = in_turn(work, options.runs)
    per_image = {name: value / len(images) for name, value in seconds.items()}

    flops = {
        "released": gflop(lambda: finetune_one(explainer, plain, images[:1], 1)) * steps,
        "ours": (flops_of(3) - flops_of(2)) / 2 * steps,
    }
    found = {}
    for precision in options.precisions:
        result = _speed(precision, per_image, flops, peaks)
        masks = made[f"{precision} ours"]
        result |= _agreement(made.get("released_same_explainee", made["released"]), masks)
        result["largest_difference_to_plain_explainee"] = _agreement(made["released"], masks)[
            "largest_mask_difference"
        ]
        result |= {"images": len(images), "steps": steps, "slots": options.slots}
        if precision != "float32":
            result["effect"] = _effect(explainee, images, classes, made, precision)
        found[f"{key}_{precision}"] = show(f"{key}_{precision}", result)
    return found


def _speed(precision: str, seconds: dict, flops: dict, peaks: dict) -> dict:
    """Ratios, seconds per image and the share of the peak rate that each side reaches."""
    ours = {name: seconds[f"{precision} {name}"] for name in ("ours", "without_shortcuts", "without_scoring")}
    result = {
        "ratio": seconds["released"] / ours["ours"],
        "ratio_without_shortcuts": seconds["released"] / ours["without_shortcuts"],
        "share_of_scoring_without_shortcuts": 1 - ours["without_scoring"] / ours["without_shortcuts"],
        "seconds_per_image": {"released": seconds["released"]} | ours,
        "gflop_per_image": flops,
        "peak_fraction_released": flops["released"] / seconds["released"] / peaks["float32"],
        "peak_fraction_without_shortcuts": flops["ours"] / ours["without_shortcuts"] / peaks[precision],
    }
    if "released_same_explainee" in seconds:
        result["ratio_same_explainee"] = seconds["released_same_explainee"] / ours["ours"]
    if f"{precision} other_loop" in seconds:
        result["vmap_or_loop_the_other_way"] = seconds[f"{precision} other_loop"] / ours["without_scoring"]
    return result


def _agreement(released: list[dict], ours: tuple[dict, dict]) -> dict:
    """Whether the masks are equal, and the share of images on which POS selects the same step."""
    masks, figures = ours
    difference = max(
        (masks[variant][i] - one[variant]).abs().max().item()
        for variant in VARIANTS
        for i, one in enumerate(released)
    )
    same = [
        _selected(one["pos"]) == int(step) for one, step in zip(released, figures["best_step"], strict=True)
    ]
    return {
        "equal": difference < 1e-5,
        "largest_mask_difference": difference,
        "same_step_by_pos": sum(same) / len(same),
    }


def _selected(pos: Tensor) -> int:
    """The step with the lowest POS, none after the first one under 6 (released)."""
    stopped = (pos < STOP_POS).nonzero()[:, 0].tolist()
    return int(pos[: stopped[0] + 1 if stopped else None].argmin())


def _effect(explainee, images: Tensor, classes: Tensor, made: dict, precision: str) -> dict:
    """POS and NEG (float32 explainee) of the masks made in float32 and in `precision`."""
    found = {}
    unmasked = read_class(explainee, images, classes)
    for name in ("float32", precision):
        if f"{name} ours" not in made:
            continue
        for variant in ("last", "best_pos"):
            maps = upsample(made[f"{name} ours"][0][variant][:, None], images.shape[-2:])[:, 0]
            for metric, first in (("POS", True), ("NEG", False)):
                curve = removal_curve(explainee, images, maps, classes, first, unmasked)[1]
                found[f"{metric}_{variant}_{name}"] = auc(curve).mean().item()
    if "float32 ours" in made:
        masks, other = (made[f"{name} ours"][0]["last"] for name in ("float32", precision))
        found["mean_mask_difference"] = (masks - other).abs().mean().item()
    return found


if __name__ == "__main__":
    main()
