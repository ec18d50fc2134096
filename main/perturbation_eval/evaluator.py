"""Perturbation metrics of a run folder, from its mask files."""

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
from ltx.main.runs.run_record import MaskRunRecord

PROTOCOL = "perturbation"


def evaluate(options: PerturbationOptions) -> dict[str, dict]:
    """Score every mask file of `options.run_folder`, or this process's share of them.

    Writes `results/perturbation-<settings>/`: `parts/`, from which a killed evaluation resumes, and, once all
    parts are there, `per_image.csv`, `summary.json` and `curves.png`. `settings` names the fill, the class
    and, unless it is `fast`, the choice of metrics.

    Returns:
        `rows` of summary.json; empty while other shards are still at work.

    Raises:
        UserError: no run folder, no mask files, unknown metric, images or weights that are no longer there.
    """
    metrics = choose_metrics(options.metrics)
    run = read_mask_run(options.run_folder)
    score_class = options.score_class or run.score_class
    folder = _results_folder(options, score_class, metrics)
    device = devices.pick_device(options.device)

    def prepare() -> UnitScorer:
        keep_freed_memory()
        explainee = explainee_of_run(run, options.download).to(device)
        speed_up(options, explainee)
        images = rebuild(run.dataset, explainee.input_size)
        chosen = from_manifest(options.run_folder / "manifest.csv", images)
        return UnitScorer(explainee, images, chosen, metrics, score_class, options, device)

    names = [metric.name for metric in metrics]
    scores = evaluation.score_units(options, folder, run, PROTOCOL, prepare, names)
    return {} if scores is None else _add_up(folder, options, run, score_class, metrics, scores)


def evaluate_and_print(options: PerturbationOptions) -> dict[str, dict[str, float]]:
    """Evaluate, print the table (with class, fill and early stop named) and return means by variant."""
    rows = evaluate(options)
    if rows:
        run = read_mask_run(options.run_folder)
        title = f"perturbation metrics of {progress.display_path(options.run_folder)}"
        title += f" (class scored: {options.score_class or run.score_class}; fill: {options.fill})"
        title += "; stopped early, as released" if run.early_stop else ""
        print(tables.format_table(rows, title, run.candidates))
    return tables.means_of(rows)


def _results_folder(options: PerturbationOptions, score_class: str, metrics: tuple[Metric, ...]) -> Path:
    precision = "" if options.precision == "float32" else options.precision
    return evaluation.results_folder(
        options, PROTOCOL, f"{options.fill}-{score_class}", precision, name_of(metrics)
    )


def _add_up(
    folder: Path,
    options: PerturbationOptions,
    run: MaskRunRecord,
    score_class: str,
    metrics: tuple[Metric, ...],
    scores: dict[str, np.ndarray],
) -> dict:
    """Write per_image.csv, summary.json and curves.png; return the rows of the summary."""
    names, keep = evaluation.kept_images(options, scores["index"])
    _write_per_image(folder / "per_image.csv", names, keep, metrics, scores)
    rows, curves, axes = {}, {}, {}
    for v, variant in enumerate(scores["variants"].tolist()):
        rows[variant], curves[variant] = {}, {}
        for m, metric in enumerate(metrics):
            detail = detail_of(scores, metric)
            values = scores["values"][v, keep, m]
            summary = metric.summarise(values, None if detail is None else detail[v, keep])
            rows[variant][metric.name] = tables.entry(summary.mean, summary.n, metric.higher_is_better)
            if summary.curve is not None:
                axes[metric.name], curves[variant][metric.name] = summary.curve
    settings = {
        "fill": options.fill,
        "score_class": score_class,
        "excluded": int((~keep).sum()),
        "precision": options.precision,
        "metrics": name_of(metrics) or "fast",
        "early_stop": run.early_stop,
    }
    more = {"curves": curves, "axes": axes, "candidates": run.candidates}
    tables.write_summary(folder, PROTOCOL, settings, run.hash, rows, **more)
    if axes:
        plot_curves(folder / "curves.png", curves, f"fill {options.fill}, class {score_class}", axes)
    return rows


def _write_per_image(
    path: Path, names: list[str], keep: np.ndarray, metrics: tuple[Metric, ...], scores: dict[str, np.ndarray]
) -> None:
    in_csv = [metric for metric in metrics if metric.in_csv]
    header = ["index", "image", "scored_class", "variant", *(metric.name for metric in metrics)]
    rows = [
        [i, names[i], scores["scored"][row], variant, *scores["values"][v, row].tolist()]
        + [_points(detail_of(scores, metric)[v, row]) for metric in in_csv]
        for row, i in enumerate(scores["index"]) if keep[row]
        for v, variant in enumerate(scores["variants"].tolist())
    ]  # fmt: skip
    tables.write_per_image(path, header + [f"{metric.name}_points" for metric in in_csv], rows)


def _points(detail: np.ndarray) -> str:
    """Return points of a performance information curve as `information:performance`, "" if not finite."""
    if not np.isfinite(detail).all():
        return ""
    return " ".join(f"{x:.6g}:{y:.6g}" for x, y in zip(*detail.reshape(2, -1), strict=True))
