"""The published command lines run: a ViT-Base of the published layout, few images, little memory.

What is added to each command names images and weights, which lie elsewhere in a test, and shortens it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt
from ltx.main.segmentation_eval import seg_stage_a, seg_stage_b
from ltx.tests.support.published_files import vit_base_file
from ltx.tests.support.segmentation_sets import pictures, write_gtsegs

resource = pytest.importorskip("resource", reason="limits of memory are those of Unix")

# Room beside what the process has; sixteen images side by side would take 26 GB.
ROOM = 5 * 2**30
PAIR = "--explainer-model-name vit_base_224 --explainee-model-name vit_base_224"
SHORT = "--n_epochs_to_optimize_stage_b 2 --explainer-checkpoint pair.ckpt --default-root-dir runs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint, two images of each of two ImageNet classes, and a segmentation set of two."""
    folder = tmp_path_factory.mktemp("published")
    vit_base_file(folder / "pair.ckpt")
    rng = np.random.default_rng(0)
    for wnid in ("n01440764", "n15075141"):
        (folder / "val" / wnid).mkdir(parents=True)
        for name in ("a.JPEG", "b.JPEG"):
            pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((250, 200)).save(folder / "val" / wnid / name)
    write_gtsegs(folder / "gtsegs_ijcv.mat", *pictures([(60, 80), (80, 60)]))
    return folder


@pytest.fixture
def run(run_script, folder, monkeypatch) -> Iterator:
    """`run(module, command)`: runs a script in little memory; its results and what it printed."""
    monkeypatch.chdir(folder)
    before = resource.getrlimit(resource.RLIMIT_AS)

    def go(module, command: str) -> tuple[dict, str]:
        limit = psutil.Process().memory_info().vms + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
        done = run_script(module, *command.split(), "--device", "cpu", "--num-workers", "0")
        assert done.code == 0, done.err
        made = Path(done.closing["run"])
        assert made.is_absolute() and made.is_dir()
        return done.closing["results"], done.out

    yield go
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_pretraining(run):
    results, out = run(
        run_seg_cls,
        f"--enable-checkpointing True {PAIR} --mask-loss-mul 50 --train-model-by-target-gt-class True "
        "--n-epochs 30 --train-n-label-sample 1 "
        "--n-epochs 1 --images-path val --explainee-checkpoint pair.ckpt --default-root-dir trained",
    )
    assert "training on 2 images, validating on 2" in out and 0 <= results["pltx"]["POS"] <= 90


def test_ltx(run):
    results, out = run(
        run_seg_cls_opt,
        f"--RUN-BASE-MODEL False {PAIR} --train-model-by-target-gt-class True "
        f"{SHORT} --max-images 2 --images-path val --metrics ADP",
    )
    assert set(results) == {"pltx", "last", "best_loss", "best_pos"}
    assert re.search("taking [12] at once", out)


@pytest.mark.parametrize("stage", [seg_stage_a, seg_stage_b])
def test_segmentation(run, stage):
    results, _ = run(stage, f"{PAIR} --dataset-type imagenet {SHORT} --max-images 1 --segmentation-root .")
    assert set(results) == ({"pltx"} if stage is seg_stage_a else {"pltx", "last", "best_loss", "best_pos"})
    assert all({"PA", "mAP", "mIoU", "mF1"} <= set(row) for row in results.values())
