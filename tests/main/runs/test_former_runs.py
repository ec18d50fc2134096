"""Run folders that the version of commit 5bb9d14 began: the same command resumes them.

`data/` holds run.json of each kind of run, and of LTX the first of two mask files too.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ltx.main import explain
from ltx.main.baselines import run_baselines
from ltx.main.class_eval import run_class_eval
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.main.seg_classification import run_seg_cls_opt
from ltx.main.segmentation_eval import seg_stage_a

DATA = Path(__file__).parent / "data"
DIGITS = ["--explainee-model-name", "vit_digits", "--num-workers", "0", "--device", "cpu"]
COMMANDS = {
    "ltx": (
        run_seg_cls_opt,
        ["--explainer-model-name", "vit_digits", "--max-images", "4", "--unit-size", "2",
         "--n_epochs_to_optimize_stage_b", "2", "--evaluate", "False"],
    ),
    "baselines": (
        run_baselines,
        ["--method", "random,input_gradient", "--max-images", "4", "--unit-size", "2", "--evaluate", "False"],
    ),
    "stage": (seg_stage_a, ["--max-images", "2", "--evaluate", "False"]),
    "explain": (explain, ["--recipe", "released", "--steps", "2", "--target-class", "3", "5"]),
    "classes": (
        run_class_eval,
        ["--max-images", "2", "--split", "tune", "--recipe", "ordered", "--method", "random"],
    ),
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture
def resume(run_script, tmp_path):
    """`resume(kind, *left_out)`: copies a folder of the former version and runs its command in the copy."""

    def go(kind, *left_out):
        script, argv = COMMANDS[kind]
        shutil.copytree(DATA / kind, tmp_path / kind, ignore=shutil.ignore_patterns(*left_out))
        if script is explain:
            photo = tmp_path / "photo.ppm"
            photo.write_bytes(b"P6\n12 10\n255\n" + bytes((7 * i) % 256 for i in range(360)))
            os.utime(photo, ns=(10**18, 10**18))  # the run knows its pictures by size and time
            argv = [*argv, "--input", photo]
        done = run_script(script, *DIGITS, *argv, "--default-root-dir", tmp_path, "--run-name", kind)
        assert done.code == 0, done.err
        return tmp_path / kind

    return go


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_same_command_resumes(resume, kind):
    folder = resume(kind)
    assert (folder / "run.json").read_bytes() == (DATA / kind / "run.json").read_bytes()
    n_images = {"ltx": 4, "baselines": 4, "stage": 2, "explain": 1, "classes": 2}[kind]
    assert len({index for file in unit_files(folder) for index in read_unit(file).index}) == n_images
    for file in (DATA / kind).glob("masks/*.h5"):
        assert (folder / "masks" / file.name).read_bytes() == file.read_bytes()


def test_masks_are_those_of_the_former_version(resume):
    (former,) = (DATA / "ltx" / "masks").glob("*.h5")
    ours, theirs = read_unit(resume("ltx", "*.h5") / "masks" / former.name), read_unit(former)
    assert ours.token_masks.keys() == theirs.token_masks.keys()
    assert ours.arrays.keys() == theirs.arrays.keys() and ours.attributes.keys() == theirs.attributes.keys()
    for name, masks in theirs.token_masks.items():
        np.testing.assert_allclose(ours.token_masks[name], masks, rtol=0, atol=1e-4)
    for name in ("index", "classes"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
