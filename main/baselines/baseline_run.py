"""A run of other methods' maps over an image set, shared by the script and the demo."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.main.baselines import imported
from ltx.main.baselines.base import Batch
from ltx.main.baselines.methods import BASELINES, parse_methods, resolve_methods
from ltx.main.baselines.options import BaselineOptions
from ltx.main.baselines.selection import best_of
from ltx.main.runs.build_images import choose_images
from ltx.main.runs.build_models import explainee_record, model_to_explain
from ltx.main.runs.mask_files import MaskUnit
from ltx.main.runs.mask_job import UnitInput, make_masks
from ltx.models.checkpoints import weights_sha256
from ltx.models.explainee import Explainee
from ltx.models.masking import min_max
from ltx.models.registry import pair_folder

log = logging.getLogger(__name__)

SELECTED = "_best_pos"


def run_baselines(
    explainee: Explainee,
    images: ImageSet,
    folder: Path,
    methods: Sequence[str],
    device: torch.device,
    options: BaselineOptions | None = None,
) -> Path:
    """Fills a run folder with the maps of some methods, `saliency/<method>`, each scaled to [0, 1].

    With `select_best_of`, `saliency/<method>_best_pos` beside each.

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
        UserError: unknown method, one that does not fit the explainee, a package that is not installed, no
            images, another run in the folder, maps to import that are missing or broken.
    """
    options = options or BaselineOptions(method="", explainee_model_name=explainee.name)
    methods = resolve_methods(parse_methods(",".join(methods)), explainee)
    options = dataclasses.replace(options, method=",".join(methods))
    check_options(options)
    chosen = choose_images(images, options)
    if imported.METHOD in methods:
        imported.check_maps(options, [images.names[index] for index in chosen])
    explained = model_to_explain(explainee, options)
    names = {method: variant_name(method, options) for method in methods}

    def make(unit: UnitInput) -> MaskUnit:
        maps, arrays = {}, {}
        for rows in torch.arange(len(unit.images)).split(options.batch_size):
            batch_names = [images.names[chosen[index]] for index in unit.index[rows].tolist()]
            batch = Batch(unit.images[rows], unit.classes[rows], batch_names)
            for method, variant in names.items():
                made = scaled(BASELINES[method].compute(explained, batch, options), method, batch_names)
                maps.setdefault(variant, []).append(made.cpu())
                if options.select_best_of > 1:
                    selected = variant + SELECTED
                    best, which = best_of(
                        explained, batch.images, made, unit.scored[rows], options.select_best_of
                    )
                    maps.setdefault(selected, []).append(min_max(best).cpu())
                    arrays.setdefault(f"candidate_{selected}", []).append(which.cpu())
            unit.progress(len(rows))
        joined = {name: torch.cat(parts).numpy() for name, parts in arrays.items()}
        return MaskUnit(
            None, None, {}, {name: torch.cat(parts).numpy() for name, parts in maps.items()}, joined
        )

    record = {
        "method": "baselines",
        "methods": {variant: BASELINES[method].source for method, variant in names.items()},
        "explainee": explainee_record(options, explainee),
        "candidates": _candidates(list(names.values()), options.select_best_of),
    }
    identity = {"explainee": weights_sha256(explainee.model)}
    make_masks(
        folder, options, explainee, images, chosen, identity, record, make, options.unit_size, device,
        {"method": ",".join(names.values())},
    )  # fmt: skip
    return folder


def check_options(options: BaselineOptions) -> None:
    """Raises `UserError` where a number is out of range."""
    lowest = {
        "batch_size": 1, "unit_size": 1, "select_best_of": 1, "smoothgrad_samples": 1, "ig_steps": 2,
        "rise_masks": 1, "rise_grid": 2,
    }  # fmt: skip
    for name, least in lowest.items():
        if getattr(options, name) < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}")
    if not options.smoothgrad_noise > 0:
        raise UserError("--smoothgrad-noise must be above 0")


def variant_name(method: str, options: BaselineOptions) -> str:
    """How a method's maps are named in the mask files."""
    return imported.variant_name(options) if method == imported.METHOD else method


def default_run_name(options: BaselineOptions, images_name: str) -> str:
    """Folder name from the explainee, the class that is explained and the methods."""
    pair = pair_folder(options.explainee_model_name, options.explainee_model_name).name
    kind = "target" if options.train_model_by_target_gt_class else "predicted"
    methods = [variant_name(method, options) for method in parse_methods(options.method)]
    name = "-".join(methods)
    if len(methods) > 3:
        name = f"{len(methods)}-methods-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    suffix = f"-best-of-{options.select_best_of}" if options.select_best_of > 1 else ""
    return f"{images_name}-{pair}-{kind}-{name}{suffix}{'-randomised' if options.randomise_weights else ''}"


def scaled(maps: Tensor, method: str, names: list[str]) -> Tensor:
    """Maps scaled to [0, 1]; NaN (a method that divided by nothing) counts as 0, with a warning."""
    maps = maps.detach().float()
    broken = ~torch.isfinite(maps).all(dim=(1, 2))
    for i in broken.nonzero()[:, 0].tolist():
        log.warning("%s gave NaN or infinities for image %s; they count as 0", method, names[i])
    return min_max(torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0))


def _candidates(variants: list[str], select_best_of: int) -> dict[str, int]:
    """How many maps each variant was chosen from."""
    selected = {variant + SELECTED: select_best_of for variant in variants} if select_best_of > 1 else {}
    return dict.fromkeys(variants, 1) | selected
