"""The published command lines run: a ViT-Base of the published layout, few images, little memory.

What is added to each command names images and weights, which lie elsewhere in a test, and shortens it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltx.config import ROOT
from ltx.tests.support.published_files import vit_base_file
from ltx.tests.support.segmentation_sets import pictures, write_gtsegs

resource = pytest.importorskip("resource", reason="limits of memory are those of Unix")

# Address space, of which Python with PyTorch takes half. Sixteen images side by side would take 26 GB.
LIMIT = 8 * 2**30
PAIR = "--explainer-model-name vit_base_224 --explainee-model-name vit_base_224 "
FEW = "--max-images 2 --n_epochs_to_optimize_stage_b 2 --default-root-dir runs"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A checkpoint, four images in two ImageNet classes, and a segmentation set of two."""
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


def run(place: Path, script: str, command: str) -> tuple[dict, str]:
    """Runs a script in little memory; its closing line and everything it printed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "main" / script), *f"{command} --device cpu --num-workers 0".split()],
        cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    closing = json.loads(done.stdout.splitlines()[-1])
    assert Path(closing["run"]).is_absolute() and Path(closing["run"]).is_dir()
    return closing["results"], done.stdout


def test_pretraining(place):
    results, out = run(
        place, "seg_classification/run_seg_cls.py",
        f"--enable-checkpointing True {PAIR} --mask-loss-mul 50 --train-model-by-target-gt-class True "
        "--n-epochs 30 --train-n-label-sample 1 "
        "--n-epochs 1 --images-path val --explainee-checkpoint pair.ckpt --default-root-dir trained",
    )  # fmt: skip
    assert "training on 2 images, validating on 2" in out and 0 <= results["pltx"]["POS"] <= 90


def test_ltx(place):
    results, out = run(
        place, "seg_classification/run_seg_cls_opt.py",
        f"--RUN-BASE-MODEL False {PAIR} --train-model-by-target-gt-class True "
        f"{FEW} --images-path val --explainer-checkpoint pair.ckpt --metrics ADP",
    )  # fmt: skip
    assert set(results) == {"pltx", "last", "best_loss", "best_pos"}
    assert re.search("taking [12] at once", out)


@pytest.mark.parametrize("stage", ["a", "b"])
def test_segmentation(place, stage):
    results, _ = run(
        place, f"segmentation_eval/seg_stage_{stage}.py",
        f"{PAIR} --dataset-type imagenet "
        f"{FEW} --max-images 1 --segmentation-root . --explainer-checkpoint pair.ckpt",
    )  # fmt: skip
    assert set(results) == ({"pltx"} if stage == "a" else {"pltx", "last", "best_loss", "best_pos"})
    assert all({"PA", "mAP", "mIoU", "mF1"} <= set(row) for row in results.values())
