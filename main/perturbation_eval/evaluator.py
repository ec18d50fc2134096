"""From the mask files of a run folder to perturbation metrics, unit by unit."""

from pathlib import Path

import numpy as np

from ltx.datasets.build import rebuild
from ltx.datasets.manifest import from_manifest
from ltx.main.common import devices, progress
from ltx.main.common.devices import keep_freed_memory, speed_up
from ltx.main.common.figures import plot_curves
from ltx.main.perturbation_eval.metrics import Metric, choose_metrics, name_of
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.perturbation_eval.unit_scorer import UnitScorer, detail_of
from ltx.main.runs import evaluation, tables
from ltx.main.runs.build_models import explainee_of_run
from ltx.main.runs.run_folder import read_mask_run

PROTOCOL = "perturbation"


def evaluate(options: PerturbationOptions) -> dict[str, dict]:
    """Scores every mask file of `options.run_folder`, or this process's share of them.

    Writes `results/perturbation-<settings>/`: a part per mask file (what makes it go on after a kill), and,
    once all parts are there, `per_image.csv`, `summary.json` and `curves.png`. `settings` names the fill, the
    class and, unless it is `fast`, the choice of metrics.

    Returns:
        `rows` of summary.json; empty while other shards are still at work.

    Raises:
        UserError: no run folder, no mask files, unknown metric, images or weights that are no longer there.
    """
    metrics = choose_metrics(options.metrics)
    run = read_mask_run(options.run_folder)
    score_class = options.score_class or run["score_class"]
    folder = _results_folder(options, score_class, metrics)
    device = devices.pick_device(options.device)

    def prepare():
        keep_freed_memory()
        explainee = explainee_of_run(run, options.download).to(device)
        speed_up(options, explainee)
        images = rebuild(run["dataset"], explainee.input_size)
        chosen = from_manifest(options.run_folder / "manifest.csv", images)
        return UnitScorer(explainee, images, chosen, metrics, score_class, options, device).score

    names = [metric.name for metric in metrics]
    parts = evaluation.score_units(options, folder, run, PROTOCOL, prepare, names)
    return {} if parts is None else _add_up(folder, options, run, score_class, metrics, parts)


def evaluate_and_print(options: PerturbationOptions) -> dict[str, dict[str, float]]:
    """Evaluates, prints the table (with class, fill and early stop named) and returns means by variant."""
    rows = evaluate(options)
    if rows:
        run = read_mask_run(options.run_folder)
        title = f"perturbation metrics of {progress.display_path(options.run_folder)}"
        title += f" (class scored: {options.score_class or run['score_class']}; fill: {options.fill})"
        if run["options"].get("early_stop"):
            title += "; stopped early, as released"
        print(tables.format_table(rows, title, tables.candidates_of(options.run_folder)))
    return tables.means_of(rows)


def _results_folder(options: PerturbationOptions, score_class: str, metrics: tuple[Metric, ...]) -> Path:
    settings = f"{options.fill}-{score_class}"
    if options.precision != "float32":
        settings += f"-{options.precision}"
    if name_of(metrics):
        settings += f"-{name_of(metrics)}"
    if options.exclude_manifest is not None:
        settings += f"-without-{options.exclude_manifest.stem}"
    return Path(options.run_folder) / "results" / f"{PROTOCOL}-{settings}"


def _add_up(
    folder: Path,
    options: PerturbationOptions,
    run: dict,
    score_class: str,
    metrics: tuple[Metric, ...],
    parts: list[dict],
) -> dict:
    """Writes per_image.csv, summary.json and curves.png from all parts; returns the summary's rows."""
    names = [metric.name for metric in metrics]
    index, scored = (np.concatenate([part[key] for part in parts]) for key in ("index", "scored"))
    values = np.concatenate([part["values"] for part in parts], axis=1)
    details = {
        metric.name: np.concatenate([detail_of(part, metric) for part in parts], axis=1)
        for metric in metrics
        if detail_of(parts[0], metric) is not None
    }
    image_names, keep = evaluation.kept_images(options, index)
    variants = parts[0]["variants"].tolist()
    in_csv = [metric.name for metric in metrics if metric.in_csv]
    tables.write_per_image(
        folder / "per_image.csv",
        ["index", "image", "scored_class", "variant", *names, *[f"{name}_points" for name in in_csv]],
        [
            [index[i], image_names[index[i]], scored[i], variant, *values[v, i].tolist()]
            + [_points(details[name][v, i]) for name in in_csv]
            for i in np.flatnonzero(keep)
            for v, variant in enumerate(variants)
        ],
    )
    rows, curves, axes = {}, {}, {}
    for v, variant in enumerate(variants):
        rows[variant], curves[variant] = {}, {}
        for m, metric in enumerate(metrics):
            detail = details.get(metric.name)
            summary = metric.summarise(values[v, keep, m], None if detail is None else detail[v, keep])
            rows[variant][metric.name] = tables.entry(summary.mean, summary.n, metric.higher_is_better)
            if summary.curve is not None:
                axes[metric.name], curves[variant][metric.name] = summary.curve
    settings = {"fill": options.fill, "score_class": score_class, "excluded": int((~keep).sum())}
    settings["precision"] = options.precision
    settings |= {
        "metrics": name_of(metrics) or "fast",
        "early_stop": bool(run["options"].get("early_stop", False)),
    }
    tables.write_summary(
        folder, PROTOCOL, settings, run["hash"], rows, curves=curves, axes=axes,
        candidates=run.get("candidates", {}),
    )  # fmt: skip
    if axes:
        plot_curves(folder / "curves.png", curves, f"fill {options.fill}, class {score_class}", axes)
    return rows


def _points(detail: np.ndarray) -> str:
    """Points of a performance information curve as `information:performance`, or nothing."""
    if not np.isfinite(detail).all():
        return ""
    return " ".join(f"{x:.6g}:{y:.6g}" for x, y in zip(*detail.reshape(2, -1), strict=True))
