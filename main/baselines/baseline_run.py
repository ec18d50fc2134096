"""A run of other methods' maps over an image set, shared by the script and the demo."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from config import BaselineOptions
from datasets.base import ImageSet
from datasets.mask_files import MaskUnit
from main.baselines.base import Batch
from main.baselines.methods import BASELINES, parse_methods
from main.mask_run import UnitInput, choose_images, make_masks
from main.pair import explainee_record, weights_sha256
from models.explainee import Explainee
from models.masking import min_max
from models.registry import pair_folder


def run_baselines(
    explainee: Explainee,
    images: ImageSet,
    folder: Path,
    methods: Sequence[str],
    device: torch.device,
    options: BaselineOptions | None = None,
) -> Path:
    """Fills a run folder with the maps of some methods, `saliency/<method>`, each scaled to [0, 1].

    Args:
        explainee: on the device.
        images: the image set.
        folder: the run folder; what is there already is not made again.
        methods: names, see `main.baselines.methods`.
        device: where to compute.
        options: everything else (which images, seed, ...); its `method` is replaced by `methods`. Pass the
            explainee's checkpoint here where it has one, so that evaluators find it again.

    Returns:
        The run folder.

    Raises:
        UserError: unknown method, no images, another run in the folder.
    """
    methods = parse_methods(",".join(methods))
    options = options or BaselineOptions(method="", explainee_model_name=explainee.name)
    options = dataclasses.replace(options, method=",".join(methods))
    chosen = choose_images(images, options)

    def make(unit: UnitInput) -> MaskUnit:
        maps = {method: [] for method in methods}
        for rows in torch.arange(len(unit.images)).split(options.batch_size):
            names = [images.names[chosen[index]] for index in unit.index[rows].tolist()]
            batch = Batch(unit.images[rows], unit.classes[rows], names)
            for method in methods:
                made = BASELINES[method].compute(explainee, batch, options)
                maps[method].append(min_max(made.detach().float()).cpu())
            unit.progress(len(rows))
        return MaskUnit(None, None, {}, {method: torch.cat(maps[method]).numpy() for method in methods})

    record = {
        "method": "baselines",
        "methods": {method: BASELINES[method].source for method in methods},
        "explainee": explainee_record(options, explainee),
    }
    identity = {"explainee": weights_sha256(explainee.model)}
    make_masks(
        folder, options, explainee, images, chosen, identity, record, make, options.unit_size, device,
        {"method": ",".join(methods)},
    )  # fmt: skip
    return folder


def default_run_name(options: BaselineOptions, images_name: str) -> str:
    """Folder name from the explainee, the class that is explained and the methods."""
    pair = pair_folder(options.explainee_model_name, options.explainee_model_name).name
    kind = "target" if options.train_model_by_target_gt_class else "predicted"
    methods = parse_methods(options.method)
    name = "-".join(methods)
    if len(methods) > 3:
        name = f"{len(methods)}-methods-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return f"{images_name}-{pair}-{kind}-{name}"
