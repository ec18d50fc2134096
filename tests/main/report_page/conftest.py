"""Runs with made-up maps and scores, in the evaluators' own formats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.common import figures
from ltx.main.perturbation_eval import evaluator as perturbation
from ltx.main.perturbation_eval.metrics import InformationCurve, RemovalAuc, RiseAuc, choose_metrics
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.report_run import make_report
from ltx.main.runs import evaluation
from ltx.main.runs.mask_files import MaskUnit, unit_path, write_unit
from ltx.main.runs.run_folder import open_run, read_mask_run
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.main.segmentation_eval import evaluator as segmentation
from ltx.main.segmentation_eval.metrics import void_policies
from ltx.main.segmentation_eval.options import SegmentationOptions

SIZE = (16, 16)


def write_run(
    folder: Path,
    variants=("pltx", "last"),
    n_images: int = 6,
    first: int = 0,
    seed: int = 0,
    metrics: str = "fast",
    fills=("black",),
    segmentation_too: bool = False,
    shift: float = 0.0,
    record: dict | None = None,
    dataset: dict | None = None,
    **options,
) -> Path:
    """A run of digits `first` to `first + n_images - 1` with random maps and scores.

    Args:
        folder: the run folder.
        variants: names of the maps.
        n_images: images of the run.
        first: index of the first digit.
        seed: of the made-up numbers; the same for the same image in every run.
        metrics: of `choose_metrics`.
        fills: one results folder each.
        segmentation_too: segmentation results as well.
        shift: added to every value of the perturbation metrics.
        record: further content of run.json.
        dataset: further content of its description of the images.
        options: of `FinetuneOptions`.
    """
    images = DigitsOnPhotos("test", image_size=SIZE)
    record = {
        "method": "ltx",
        "score_class": "explained",
        "explainee": {"name": "vit_digits", "checkpoint": None, "sha256": "0" * 64},
        "dataset": images.describe() | (dataset or {}),
        "n_images": n_images,
        "unit_size": n_images,
        "input_size": list(SIZE),
        "candidates": {"last": 1, "best_pos": 25},
    } | (record or {})
    settings = FinetuneOptions(explainee_model_name="vit_digits", **options)
    open_run(folder, settings, {"images": f"{first}+{n_images}", "variants": list(variants)}, record)
    names = [str(index) for index in range(first, first + n_images)]
    lines = ["index,image,label", *(f"{i},{name},{int(name) % 10}" for i, name in enumerate(names))]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    run = read_mask_run(folder)
    index, classes = np.arange(n_images), np.array([int(name) % 10 for name in names])
    rng = np.random.default_rng(seed)
    maps = {variant: rng.random((n_images, *SIZE), dtype=np.float32) for variant in variants}
    write_unit(unit_path(folder, range(n_images)), MaskUnit(index, classes, {}, maps))
    for fill in fills:
        _write_perturbation(folder, run, variants, index, classes, rng, metrics, fill, shift)
    if segmentation_too:
        _write_segmentation(folder, run, variants, index, rng, images)
    return folder


def _write_perturbation(folder, run, variants, index, classes, rng, metrics, fill, shift):
    chosen = choose_metrics(metrics)
    options = PerturbationOptions(run_folder=folder, fill=fill, metrics=metrics)
    n, v = len(index), len(variants)
    part = {
        "index": index, "scored": classes, "variants": np.array(variants),
        "values": 90 * rng.random((v, n, len(chosen))) + shift,
        "metrics": np.array([metric.name for metric in chosen]),
    }  # fmt: skip
    lengths = {RemovalAuc: 10, RiseAuc: SIZE[0] + 1}
    for m, metric in enumerate(chosen):
        if type(metric) in lengths:
            part[f"detail_{metric.name}"] = rng.random((v, n, lengths[type(metric)]), dtype=np.float32)
        if isinstance(metric, InformationCurve):
            points = np.sort(rng.random((v, n, 2, 13), dtype=np.float32), axis=-1).reshape(v, n, 26)
            points[:, ::5] = np.nan  # images that do not count
            part["values"][:, ::5, m] = np.nan
            part[f"detail_{metric.name}"] = points
    target = perturbation._results_folder(options, run.score_class, chosen)
    write_parts(target, unit_path(folder, range(n)), part)
    perturbation._add_up(target, options, run, run.score_class, chosen, part)


def write_parts(target, file, part):
    """The scores of the one mask file of a run, as the evaluators leave them."""
    (path,) = evaluation.parts_of(target, file)
    evaluation.write_part(path, part)


def _write_segmentation(folder, run, variants, index, rng, images):
    policies = void_policies(has_void=False)
    columns = [column for policy in policies for column in policy.columns]
    values = np.where(
        [column in ("TP", "FP", "FN", "TN") for column in columns],
        rng.integers(1, 100, (len(variants), len(index), len(columns))),
        100 * rng.random((len(variants), len(index), len(columns))),
    )
    part = {
        "index": index,
        "variants": np.array(variants),
        "values": values,
        "metrics": np.array(columns),
    }
    options = SegmentationOptions(run_folder=folder)
    target = segmentation._results_folder(options, run, images)
    write_parts(target, unit_path(folder, range(len(index))), part)
    chosen = list(range(int(images.names[0]), len(images)))
    segmentation._add_up(target, options, run, segmentation.UnitScorer(images, chosen, policies), part)


@pytest.fixture
def make_run(tmp_path, monkeypatch) -> Callable[..., Path]:
    """`make_run(name, **arguments of write_run)`: a run folder below `tmp_path`; its pictures are a dot."""

    def save(figure, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 30, 30)).save(path)

    monkeypatch.setattr(figures, "_save", save)

    def make(name="run", **arguments):
        return write_run(tmp_path / name, **arguments)

    return make


@pytest.fixture
def write_page(tmp_path) -> Callable[..., str]:
    """`write_page(*runs, **options)`: the page of some runs; all files go to `out/`."""

    def write(*runs, **options):
        path = tmp_path / "out" / "report.html"
        few = {"resamples": 100, "gallery_images": 2}
        make_report(ReportOptions(runs=tuple(map(str, runs)), output=path, **few | options))
        return path.read_text(encoding="utf-8")

    return write
