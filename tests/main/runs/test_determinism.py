"""The same command with the same seed: the same numbers, however the work is cut and whoever reads.

Masks are also compared for `--batch-size` and `--num-workers` in `test_run_seg_cls_opt.py`, scores for shards
in `test_merge_results.py`, and weights for several training processes in `test_distributed.py`.
"""

import csv

import pytest
import torch

from ltx.main.seg_classification import run_seg_cls, run_seg_cls_opt
from ltx.models.checkpoints import load_safetensors

TRAIN = ["--n-epochs", "1", "--train-images", "12", "--val-images", "4", "--batch-size", "4"]
LTX = ["--max-images", "4", "--n_epochs_to_optimize_stage_b", "2", "--metrics", "POS,NEG,DEL,INS"]


@pytest.fixture
def train(tiny_pair, run_script, tmp_path, no_drawing):
    """Pretrains into a folder of its own: the weights, and the rows of epochs.csv without the seconds."""

    def go(name, *flags):
        place = ["--default-root-dir", tmp_path / name, "--run-name", "run"]
        done = run_script(run_seg_cls, *tiny_pair.flags, *TRAIN, *place, *flags)
        assert done.code == 0, done.err
        (folder,) = (tmp_path / name).glob("*/run")
        with open(folder / "epochs.csv", newline="") as file:
            rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
        return load_safetensors(folder / "last.safetensors")[0], rows

    return go


def test_pretraining_again_gives_the_same_bits_with_any_number_of_workers(train):
    weights, rows = train("first")
    for name, flags in (("again", ()), ("workers", ("--num-workers", "2"))):
        again, again_rows = train(name, *flags)
        assert again_rows == rows
        assert all(torch.equal(again[key], value) for key, value in weights.items()), name


def test_another_seed_gives_another_explainer(train):
    """The comparison above can fail."""
    weights, _ = train("first")
    other, _ = train("other", "--seed", "7")
    assert any(not torch.equal(other[key], value) for key, value in weights.items())


@pytest.fixture
def per_image(tiny_pair, run_script, tmp_path, no_drawing):
    """Makes and scores LTX masks into a folder of its own: the rows of per_image.csv."""

    def go(name, *flags):
        place = ["--default-root-dir", tmp_path, "--run-name", name]
        done = run_script(run_seg_cls_opt, *tiny_pair.flags, *LTX, *place, *flags)
        assert done.code == 0, done.err
        (path,) = (tmp_path / name).glob("results/*/per_image.csv")
        with open(path, newline="") as file:
            return list(csv.DictReader(file))

    return go


def test_scores_again_and_with_workers_are_the_same_to_the_last_digit(per_image):
    first = per_image("first")
    assert len(first) == 4 * 4
    assert per_image("again") == first and per_image("workers", "--num-workers", "2") == first


def test_scores_with_another_batch_size(per_image):
    """Masks differ by rounding, so two pixels of nearly the same value may change places at a cut.

    That moves a probability by little, and the top class of few perturbed images: POS and NEG go in steps of
    10 (5 at the ends).
    """
    alone, together = per_image("alone", "--batch-size", "1"), per_image("together", "--batch-size", "4")
    moved = 0.0
    for ours, theirs in zip(alone, together, strict=True):
        for name in ("index", "image", "scored_class", "variant"):
            assert ours[name] == theirs[name]
        for name in ("DEL", "INS"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=0.1)
        moved += sum(abs(float(ours[name]) - float(theirs[name])) for name in ("POS", "NEG"))
    assert moved <= 40
