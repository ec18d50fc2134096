"""Every flag that a script shows has an effect: its option is read while the script runs."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ltx import config
from ltx.main import convert_checkpoint, demo, explain, merge_results, report, train_digits
from ltx.main.baselines import run_baselines
from ltx.main.class_eval import run_class_eval
from ltx.main.common import options as groups
from ltx.main.perturbation_eval import run_perturbation_eval
from ltx.main.runs.run_folder import resolved_options
from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt
from ltx.main.segmentation_eval import run_segmentation_eval, seg_stage_a, seg_stage_b
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import save_explainer
from ltx.tests.support import published_files
from ltx.tests.support.scripts import options_classes

pytestmark = pytest.mark.usefixtures("no_drawing")

# Functions that copy, store or check all options alike; what they read has no effect by that.
_COPIES = {
    "replace", "resolved_options", "_check_paths", "check_options", "shared", "filled", "settled", "__repr__",
    "__eq__", "_usual_values",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnOptions:
    number: int = groups.option(1, "read")
    unread: int = groups.option(2, "stored and checked, like all others")


@pytest.fixture
def read(monkeypatch) -> set[str]:
    """The names of options that code has read, but for copies of them."""
    names = set()

    def __getattribute__(self, name):
        callers, frame = set(), sys._getframe(1)
        for _ in range(3):
            if frame is not None:
                callers.add(frame.f_code.co_name)
                frame = frame.f_back
        if not callers & _COPIES:
            names.add(name)
        return object.__getattribute__(self, name)

    for options_class in [*options_classes(), groups.PairOptions, OwnOptions]:
        monkeypatch.setattr(options_class, "__getattribute__", __getattribute__, raising=False)
    return names


@pytest.fixture
def check(run_script, read) -> Callable:
    """`check(script, *command_lines)`: runs them all, and looks for options that none of them reads."""

    def run(module, *command_lines, but_for=()) -> str:
        read.clear()
        for argv in command_lines:
            done = run_script(module, *argv)
            assert done.code == 0, done.err
        fields = {field.name for field in dataclasses.fields(module.main.__annotations__["options"])}
        assert fields - read == set(but_for)
        return done.closing["run"]

    return run


@pytest.fixture
def pair(tiny_pair) -> list:
    return [
        "--explainee-model-name", "tiny", "--explainee-checkpoint", tiny_pair.explainee, "--device", "cpu",
        "--num-workers", 0,
    ]  # fmt: skip


@pytest.fixture
def explainer(tiny_pair) -> list:
    return ["--explainer-checkpoint", tiny_pair.explainer]


@pytest.fixture
def make_masks(run_script, pair, explainer, places) -> Callable[[int], Path]:
    """`make_masks(n)`: the folder of a run with pLTX masks of n digits."""

    def make(n: int) -> Path:
        own = ["--dataset-type", "digits", "--max-images", n, "--evaluate", "False", "--run-name", f"of_{n}"]
        done = run_script(seg_stage_a, *pair, *explainer, *own)
        assert done.code == 0, done.err
        return Path(done.closing["run"])

    return make


def test_an_option_that_is_only_copied_is_found(check):
    def main(options: OwnOptions):
        resolved_options(dataclasses.replace(options, number=options.number + 1))
        return None, {}

    main.__annotations__["options"] = OwnOptions
    check(SimpleNamespace(main=main), [], but_for=["unread"])


def test_pretraining(check, pair, places, write_images):
    few, folder = (
        ["--n-epochs", 1, "--train-images", 4, "--val-images", 2],
        write_images(f"{i}.png" for i in range(6)),
    )
    check(
        run_seg_cls,
        [*pair, *few, "--images-path", "digits"],
        [*pair, *few, "--images-path", "digits", "--class-conditional", "True"],
        [*pair, *few, "--images-path", folder, "--run-name", "photos"],
    )


def test_ltx_masks(check, pair, explainer, places):
    own = [*pair, *explainer, "--max-images", 2, "--n_epochs_to_optimize_stage_b", 2]
    check(run_seg_cls_opt, [*own, "--images-path", "digits"], [*own, "--dataset-type", "digits"])


@pytest.mark.parametrize("stage", [seg_stage_a, seg_stage_b], ids=["a", "b"])
def test_segmentation_stages(stage, check, pair, explainer, places):
    few = ["--dataset-type", "digits", "--max-images", 2, "--n_epochs_to_optimize_stage_b", 2]
    check(stage, [*pair, *explainer, *few])


def test_baselines(check, pair, places, write_images, tmp_path):
    pytest.importorskip("captum")
    folder = write_images(["a.png"])
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a.npy", np.eye(32))
    methods = ["--method", "smoothgrad,integrated_gradients,rise", "--smoothgrad-samples", 1, "--ig-steps", 2]
    methods += ["--rise-masks", 4, "--select-best-of", 2]
    check(
        run_baselines,
        [*pair, *methods, "--dataset-type", "digits", "--max-images", 2],
        [*pair, "--method", "import", "--images-path", folder, "--maps-path", tmp_path / "maps"],
    )


def test_evaluators(check, make_masks):
    masks = make_masks(2)
    check(run_perturbation_eval, [masks, "--device", "cpu", "--num-workers", 0])
    check(run_segmentation_eval, [masks, "--num-workers", 0])
    check(merge_results, [masks])


def test_report(check, make_masks, run_script, tmp_path):
    runs = [make_masks(n) for n in (2, 3)]
    for run in runs:
        assert run_script(run_perturbation_eval, run, "--device", "cpu", "--num-workers", 0).code == 0
    page = ["--output", tmp_path / "report.html", "--common-images", "True"]
    check(report, [*runs, *page])


def test_class_evaluation(check, pair, tiny_pair, places, tmp_path, monkeypatch):
    monkeypatch.setattr("ltx.main.class_eval.evaluator.write_sheet", lambda *_: None)
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    conditional = Explainer.for_explainee("tiny", explainee, class_conditional=True)
    save_explainer(tmp_path / "best.safetensors", conditional, "tiny", {})
    own = ["--explainer-checkpoint", tmp_path / "best.safetensors", "--plain-checkpoint", tiny_pair.explainer]
    few = ["--dataset-type", "digits", "--max-images", 2, "--steps", 2]
    check(run_class_eval, [*pair, *own, *few])


def test_explanation(check, pair, explainer, places, write_images):
    own = [part for part in pair if part not in ("--num-workers", 0)]
    photo = write_images(["photo.jpg"]) / "photo.jpg"
    check(explain, [*own, *explainer, "--input", photo, "--steps", 2])


def test_demo(check, tiny_pair, places):
    folder = places / "checkpoints" / "tiny"
    folder.mkdir(parents=True)
    (folder / "explainee.safetensors").symlink_to(tiny_pair.explainee)
    few = ["--n-images", 2, "--train-images", 4, "--n-epochs", 1, "--images-path", "digits"]
    names = ["--explainee-model-name", "tiny", "--recipe", "released", "--device", "cpu", "--num-workers", 0]
    check(demo, [*few, *names])


def test_digits_training(check, tmp_path, monkeypatch):
    monkeypatch.setattr(train_digits, "held_out_accuracy", lambda *_: 0.5)
    few = ["--steps", 2, "--batch-size", 2, "--num-workers", 0, "--device", "cpu"]
    check(train_digits, [*few, "--output", tmp_path])


def test_conversion(check, tmp_path, monkeypatch):
    for name in [name for name, alias in config.ALIASES.items() if alias.published]:
        monkeypatch.delitem(config.ALIASES, name)
    for name, alias in published_files.TINY.items():
        monkeypatch.setitem(config.ALIASES, name, alias)
    path, *_ = published_files.vit_file(tmp_path / "in.ckpt")
    check(convert_checkpoint, [path, tmp_path / "out.safetensors"])
