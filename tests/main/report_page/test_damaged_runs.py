"""Run folders with files changed at random: what reads them does so, or says in a line what is wrong."""

import pytest

from ltx.main import merge_results
from ltx.main.perturbation_eval import evaluator as perturbation
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.report_page.collect import PERTURBATION, SEGMENTATION, open_runs, read_results
from ltx.main.report_page.compare import compare
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.provenance import provenance_of
from ltx.main.segmentation_eval import evaluator as segmentation
from ltx.main.segmentation_eval.options import SegmentationOptions
from ltx.tests.support.mutations import N_EXAMPLES, fuzz, fuzz_json

FEW = max(5, N_EXAMPLES // 4)  # each takes a tenth of a second to a second


@pytest.fixture
def run(make_run):
    """A run of six digits with scores of both kinds."""
    return make_run("run", segmentation_too=True)


def evaluate(run) -> None:
    """What the scripts do with scores that are all there: they read run.json and manifest, and add up."""
    perturbation.evaluate(PerturbationOptions(run_folder=run, device="cpu"))
    segmentation.evaluate(SegmentationOptions(run_folder=run, num_workers=0))


def merge(run) -> None:
    merge_results.check_masks(run)
    for folder in merge_results.evaluations(run):
        merge_results.merge(run, folder)


def report(run) -> None:
    """What the report reads; what it draws of that takes seconds."""
    (opened,) = open_runs((str(run),))
    found = read_results(opened)
    for protocol in (PERTURBATION, SEGMENTATION):
        compare(found, protocol, ReportOptions(runs=(str(run),)))
    provenance_of(opened, found)


@pytest.mark.parametrize("name", ["run.json", "manifest.csv"])
def test_evaluators(run, name):
    fuzz(run / name, lambda: evaluate(run), FEW)
    if name == "run.json":
        fuzz_json(run / name, lambda: evaluate(run), 2 * FEW)


@pytest.mark.parametrize("name", ["run.json", "results/perturbation-black-explained/options.json"])
def test_merging(run, name):
    evaluate(run)  # writes options.json
    fuzz(run / name, lambda: merge(run), FEW)
    fuzz_json(run / name, lambda: merge(run), 2 * FEW)


@pytest.mark.parametrize(
    "name",
    [
        "run.json", "manifest.csv", "results/perturbation-black-explained/summary.json",
        "results/perturbation-black-explained/per_image.csv",
        "results/segmentation-predicted/per_image.csv",
    ],
)  # fmt: skip
def test_report(run, name):
    fuzz(run / name, lambda: report(run))
    if name.endswith(".json"):
        fuzz_json(run / name, lambda: report(run))
