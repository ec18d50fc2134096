"""From the mask files of a run folder to perturbation metrics, unit by unit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from config import PerturbationOptions, UserError
from datasets.build import batches, rebuild
from datasets.manifest import from_manifest
from datasets.mask_files import MaskUnit
from main import cli, results
from main.pair import explainee_of_run
from main.perturbation_eval.curves import N_STEPS, read_class
from main.perturbation_eval.metrics import METRICS, MapView, RemovalAuc
from main.pictures import plot_curves
from main.run_folder import read_run

PROTOCOL = "perturbation"
CURVES = tuple(metric for metric in METRICS if isinstance(metric, RemovalAuc))


def evaluate(options: PerturbationOptions) -> dict[str, dict]:
    """Scores every mask file of `options.run_folder`, or this process's share of them.

    Writes `results/perturbation-<settings>/`: a part per mask file (what makes it go on after a kill), and,
    once all parts are there, `per_image.csv`, `summary.json` and `curves.png`.

    Returns:
        `rows` of summary.json; empty while other shards are still at work.

    Raises:
        UserError: no run folder, no mask files, images or weights that are no longer there.
    """
    run = read_run(options.run_folder)
    score_class = options.score_class or run["score_class"]
    folder = _results_folder(options, score_class)
    device = cli.pick_device(options.device)

    def prepare():
        explainee = explainee_of_run(run).to(device)
        images = rebuild(run["dataset"], explainee.input_size)
        chosen = from_manifest(options.run_folder / "manifest.csv", images)
        return lambda unit: score_unit(explainee, images, chosen, unit, score_class, options, device)

    parts = results.score_units(options, folder, run, PROTOCOL, prepare)
    return {} if parts is None else _add_up(folder, options, run, score_class, parts)


def score_unit(
    explainee,
    images,
    chosen: Sequence[int],
    unit: MaskUnit,
    score_class: str,
    options: PerturbationOptions,
    device,
) -> dict[str, np.ndarray]:
    """All metrics of all variants for the images of one mask file.

    Args:
        explainee: images to logits.
        images: the image set.
        chosen: position in the set of each image of the run.
        unit: the maps.
        score_class: "explained", "target" or "predicted".
        options: fill, batch size, workers.
        device: where to compute.

    Returns:
        `index` and `scored` (N,), `variants`, `values` (variants, N, metrics), `curves` (variants, N, 4, 10).
    """
    scored = class_to_score(unit, score_class)
    batch_size = options.batch_size or (256 if device.type == "cuda" else 64)
    positions = [chosen[index] for index in unit.index]
    values = np.zeros((len(unit.variants), len(positions), len(METRICS)))
    curves = np.zeros((len(unit.variants), len(positions), len(CURVES), N_STEPS), dtype=np.float32)
    start = 0
    for batch in batches(images, positions, max(1, batch_size // 4), options.num_workers):
        stop = start + len(batch["index"])
        pixels, classes = batch["image"].to(device), torch.from_numpy(scored[start:stop]).to(device)
        unmasked = read_class(explainee, pixels, classes)
        for v, variant in enumerate(unit.variants):
            maps = unit.maps(variant, explainee.input_size, slice(start, stop))
            shown = unit.shown(variant, maps).to(device)
            view = MapView(
                explainee, pixels, classes, maps.to(device), shown, unmasked, options.fill, batch_size
            )
            for m, metric in enumerate(METRICS):
                values[v, start:stop, m] = metric.per_image(view).cpu().numpy()
            for c, metric in enumerate(CURVES):
                curves[v, start:stop, c] = metric.curve(view).cpu().numpy()
        start = stop
    variants = np.array(unit.variants)
    return {"index": unit.index, "scored": scored, "variants": variants, "values": values, "curves": curves}


def class_to_score(unit: MaskUnit, score_class: str) -> np.ndarray:
    """Class (N,) that the maps are scored by.

    Raises:
        UserError: the true class is asked for and the images have no labels.
    """
    key = {"explained": "target", "target": "label", "predicted": "predicted"}[score_class]
    classes = unit.target if key == "target" else unit.arrays.get(key)
    if classes is None or classes.min(initial=0) < 0:
        raise UserError(f"--score-class {score_class}: the masks were made without that class of each image")
    return classes


def _results_folder(options: PerturbationOptions, score_class: str) -> Path:
    settings = f"{options.fill}-{score_class}"
    if options.exclude_manifest is not None:
        settings += f"-without-{options.exclude_manifest.stem}"
    return Path(options.run_folder) / "results" / f"{PROTOCOL}-{settings}"


def _add_up(
    folder: Path, options: PerturbationOptions, run: dict, score_class: str, parts: list[dict]
) -> dict:
    """Writes per_image.csv, summary.json and curves.png from all parts; returns the summary's rows."""
    index, scored = (np.concatenate([part[key] for part in parts]) for key in ("index", "scored"))
    values, curves = (np.concatenate([part[key] for part in parts], axis=1) for key in ("values", "curves"))
    names, keep = results.kept_images(options, index)
    variants = parts[0]["variants"].tolist()
    results.write_per_image(
        folder / "per_image.csv",
        ["index", "image", "scored_class", "variant", *[metric.name for metric in METRICS]],
        [
            [index[i], names[index[i]], scored[i], variant, *values[v, i].tolist()]
            for i in np.flatnonzero(keep)
            for v, variant in enumerate(variants)
        ],
    )
    rows = results.summary_rows(variants, METRICS, values[:, keep].mean(axis=1), int(keep.sum()))
    mean_curves = curves[:, keep].mean(axis=1)
    curve_rows = {
        variant: {metric.name: mean_curves[v, c].tolist() for c, metric in enumerate(CURVES)}
        for v, variant in enumerate(variants)
    }
    settings = {"fill": options.fill, "score_class": score_class, "excluded": int((~keep).sum())}
    settings["early_stop"] = bool(run["options"].get("early_stop", False))
    results.write_summary(folder, PROTOCOL, settings, run["hash"], rows, curves=curve_rows)
    plot_curves(folder / "curves.png", curve_rows, f"fill {options.fill}, class {score_class}")
    return rows
