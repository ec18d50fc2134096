"""Seconds per image of every method, ours and the baselines', in turn in one process.

    python tests/benchmarks/costs.py [--pairs digits lite0] [--images-path DIR] [--images 16]

Each method explains the same images the way its script does (`run_seg_cls_opt.py` by either recipe,
`run_baselines.py`), images decoded beforehand, nothing scored or written. pLTX and LTX start from the shipped
explainers. Measure on an idle machine.
"""

from functools import partial

import torch
from common import PAIRS, in_turn, open_images, parser, run, show

from ltx.config import RELEASED
from ltx.datasets.build import stack
from ltx.main.baselines.base import Batch
from ltx.main.baselines.methods import ALL, BASELINES, resolve_methods
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common.devices import speed_up
from ltx.main.runs.build_models import load_explainee, pretrained_explainer, settled
from ltx.main.seg_classification.finetuning import finetune, pltx
from ltx.main.seg_classification.ltx_run import finetune_settings
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.losses import Objective

N_IMAGES = {"digits": 64, "lite0": 16}
RECIPES = (RELEASED, "ordered")


def main() -> None:
    """Measures the pairs asked for and prints the closing line."""
    flags = parser(__doc__)
    flags.set_defaults(pairs=list(N_IMAGES))
    flags.add_argument("--images", type=int, help=f"images (default: {N_IMAGES})")
    flags.add_argument("--rise-masks", type=int, default=1000, help="forward passes of RISE")
    run(flags, measure)


def measure(key: str, options, peaks: dict[str, float]) -> dict[str, dict]:
    """Seconds per image by method, all of one pair in turn."""
    n_images = options.images or N_IMAGES[key]
    images = stack(open_images(key, options.images_path), range(n_images))
    work, shared = {}, {"explainee_model_name": PAIRS[key]}
    for recipe in RECIPES:
        work |= _ours(FinetuneOptions(**shared | {"recipe": recipe}), images)
    work |= _baselines(BaselineOptions(method=ALL, **shared, rise_masks=options.rise_masks), images)
    for call in work.values():
        call(2)  # the first call of a method is slower
    seconds, _ = in_turn({name: partial(call, n_images) for name, call in work.items()}, options.runs)
    return {key: show(key, {name: value / n_images for name, value in seconds.items()})}


def _ours(options: FinetuneOptions, images: torch.Tensor) -> dict:
    explainee = load_explainee(options)
    explainer, path, _ = pretrained_explainer(options, explainee)
    settings = finetune_settings(options, explainer, path)
    loss = Objective.from_options(settled(options, explainer))
    speed_up(options, explainee, explainer)
    with torch.no_grad():
        classes = explainee(images).argmax(1)

    def ltx(n: int):
        return finetune(explainer, explainee, images[:n], classes[:n], classes[:n], loss, settings)

    return {
        f"pltx {options.recipe}": lambda n: pltx(explainer, images[:n]),
        f"ltx {options.recipe}": ltx,
    }


def _baselines(options: BaselineOptions, images: torch.Tensor) -> dict:
    explainee = load_explainee(options)
    with torch.no_grad():
        classes = explainee(images).argmax(1)
    names = [str(i) for i in range(len(images))]

    def call(method: str, n: int):
        for rows in torch.arange(n).split(options.batch_size):
            batch = Batch(images[rows], classes[rows], [names[i] for i in rows])
            BASELINES[method].compute(explainee, batch, options)

    return {method: partial(call, method) for method in resolve_methods([ALL], explainee)}


if __name__ == "__main__":
    main()
