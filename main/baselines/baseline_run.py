"""Other methods' maps as methods of a mask job, and the run of the script."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.main.baselines import imported, own
from ltx.main.baselines.methods import find_baseline, parse_methods, resolve_methods
from ltx.main.baselines.options import BaselineOptions
from ltx.main.baselines.selection import best_of
from ltx.main.common.progress import display_path
from ltx.main.runs.build_images import images_of
from ltx.main.runs.build_models import model_to_explain
from ltx.main.runs.mask_job import MaskJob
from ltx.main.runs.method import Batch, Maps, Method, joined
from ltx.models.explainee import Explainee
from ltx.models.masking import min_max
from ltx.models.registry import pair_folder

log = logging.getLogger(__name__)

SELECTED = "_best_pos"


def run_baselines(
    options: BaselineOptions, evaluation: type, score: Callable[[Any], dict]
) -> tuple[Path, dict, dict]:
    """Make the maps of some methods and, unless told not to, score them.

    Args:
        options: which methods, of which explainee and images.
        evaluation: dataclass of the evaluation's options.
        score: from these options to the closing results.

    Returns:
        The run folder, the results, and how many images were left out.

    Raises:
        UserError: no images, no weights, another run in the folder; see `fill_with_baselines`.
    """
    parse_methods(options.method)  # before weights are looked for
    job = MaskJob.open(options, images_of(options), default_run_name)
    fill_with_baselines(job)
    print(f"maps: {display_path(job.folder)}")
    return job.evaluate(evaluation, score)


def fill_with_baselines(job: MaskJob) -> None:
    """Fill a job's folder with the maps of its options' methods, `saliency/<method>`, each scaled to [0, 1].

    With `select_best_of`, `saliency/<method>_best_pos` beside each.

    Raises:
        UserError: unknown method, one that does not fit the explainee, a package that is not installed,
            another run in the folder, maps to import that are missing or broken.
    """
    methods = resolve_methods(parse_methods(job.options.method), job.explainee)
    options = dataclasses.replace(job.options, method=",".join(methods))
    check_options(options)
    if imported.METHOD in methods:
        imported.check_maps(options, [job.images.names[index] for index in job.chosen])
    variants = {method: variant_name(method, options) for method in methods}
    record = {
        "methods": {variant: find_baseline(method).source for method, variant in variants.items()},
        "candidates": _candidates(list(variants.values()), options.select_best_of),
    }
    maps = BaselineMaps(variants, model_to_explain(job.explainee, options), options)
    functions = {method: own.code_sha256(method) for method in methods if own.is_named(method)}
    identity = {"functions": functions} if functions else {}
    job.fill(Method("baselines", maps, identity, record, options))


@dataclasses.dataclass(frozen=True)
class BaselineMaps:
    """Maps of some methods, scaled to [0, 1].

    Attributes:
        variants: name of each method's maps in the mask files.
        explainee: the model to explain.
        options: settings of the methods.
    """

    variants: dict[str, str]
    explainee: Explainee
    options: BaselineOptions

    def __call__(self, batch: Batch) -> Maps:
        parts = []
        for part in batch.split(self.options.batch_size):
            parts.append(self._part(part))
            batch.progress(len(part.images))
        return joined(parts)

    def _part(self, batch: Batch) -> Maps:
        maps, chosen = {}, {}
        for method, variant in self.variants.items():
            made = find_baseline(method).compute(self.explainee, batch, self.options)
            made = maps[variant] = scaled(made, method, batch.names)
            if (n := self.options.select_best_of) > 1:
                best, which = best_of(self.explainee, batch.images, made, batch.scored, n)
                maps[variant + SELECTED], chosen[f"candidate_{variant}{SELECTED}"] = min_max(best), which
        return Maps({}, {name: values.cpu() for name, values in maps.items()}, chosen)


def check_options(options: BaselineOptions) -> None:
    """Raise `UserError` if a number is out of range."""
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
    """Name of a method's maps in the mask files."""
    return imported.variant_name(options) if method == imported.METHOD else own.short_name(method)


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
    """Number of maps that each variant was chosen from."""
    selected = {variant + SELECTED: select_best_of for variant in variants} if select_best_of > 1 else {}
    return dict.fromkeys(variants, 1) | selected
