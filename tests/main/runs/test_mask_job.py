"""A mask job with methods made up for the purpose."""

import dataclasses

import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.baselines.options import BaselineOptions
from ltx.main.perturbation_eval.options import PerturbationOptions
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.main.runs.mask_job import MaskJob
from ltx.main.runs.method import Asked, Batch, Maps, Method, joined
from ltx.main.segmentation_eval.options import SegmentationOptions


@pytest.fixture
def job(make_explainee, tmp_path):
    """Five digits, two to a mask file."""
    explainee = make_explainee(num_classes=10)
    options = BaselineOptions(method="test", unit_size=2, num_workers=0, device="cpu", batch_size=3)
    return MaskJob(tmp_path / "run", options, explainee, DigitsOnPhotos("test", 5, (32, 32)), range(5))


def brightness(batch: Batch) -> Maps:
    """Each image's own mean, and the class that is asked for."""
    return Maps(saliency={"mean": batch.images.mean(1)}, figures={"asked": batch.classes})


def files(job) -> list:
    return [read_unit(file) for file in unit_files(job.folder)]


def test_a_method_gets_images_classes_and_names_and_its_maps_are_stored(job):
    seen = []
    job.fill(Method("mean", lambda batch: (seen.append(batch), brightness(batch))[1]))
    assert [batch.names for batch in seen] == [["0", "1"], ["2", "3"], ["4"]]
    for batch, unit in zip(seen, files(job), strict=True):
        assert torch.equal(batch.images[0], job.images[int(batch.index[0])]["image"])
        assert torch.equal(batch.classes, batch.logits.argmax(1)) and torch.equal(batch.classes, batch.scored)
        assert unit.classes.tolist() == unit.arrays["asked"].tolist() == batch.classes.tolist()
        assert unit.arrays["label"].tolist() == [job.images.labels[i] for i in unit.index]
        np.testing.assert_array_equal(unit.saliency["mean"], batch.images.mean(1))


def test_only_what_is_missing_is_made(job):
    job.fill(Method("mean", brightness))
    unit_files(job.folder)[1].unlink()
    made = []
    job.fill(Method("mean", lambda batch: (made.extend(batch.names), brightness(batch))[1]))
    assert made == ["2", "3"]
    with pytest.raises(UserError, match="another configuration"):
        job.fill(Method("mean", brightness, {"weights": "others"}))


def test_units_that_are_explained_together_are_stored_apart(job):
    job.fill(Method("mean", brightness))
    together = dataclasses.replace(job, folder=job.folder.with_name("together"))
    sizes = []
    together.fill(Method("mean", lambda b: (sizes.append(len(b.images)), brightness(b))[1], at_once=2))
    assert sizes == [4, 1]
    for ours, theirs in zip(files(together), files(job), strict=True):
        assert ours.index.tolist() == theirs.index.tolist()
        np.testing.assert_array_equal(ours.saliency["mean"], theirs.saliency["mean"])


def test_several_classes_of_an_image_share_its_fate(job):
    """Three rows for each image; one of the second image's maps is not finite, so it has none."""

    def ask(data, logits, explainee):
        rows = torch.arange(len(logits)).repeat_interleave(3)
        classes = torch.tensor([1, 2, 3] * len(logits))
        return Asked(rows, classes, classes, {"kind": classes % 2})

    def broken(batch: Batch) -> Maps:
        maps = batch.images.mean(1)
        maps[(batch.index == 1) & (batch.classes == 2)] = torch.nan
        return Maps(saliency={"mean": maps})

    job = dataclasses.replace(job, ask=ask, unit_size=5)
    job.fill(Method("mean", broken))
    (unit,) = files(job)
    assert unit.index.tolist() == np.repeat([0, 2, 3, 4], 3).tolist()
    assert unit.classes.tolist() == [1, 2, 3] * 4 and unit.arrays["kind"].tolist() == [1, 0, 1] * 4
    assert list(unit.skipped) == [1] and "image 1: its map 'mean'" in unit.skipped[1]


def test_an_evaluation_gets_the_options_that_both_have(job):
    handed = []
    job.options = dataclasses.replace(job.options, score_class="target", num_shards=2, shard_index=1)
    made = job.evaluate(PerturbationOptions, lambda options: (handed.append(options), {"x": 1})[1])
    assert made[:2] == (job.folder, {"x": 1}) and handed[0].run_folder == job.folder
    assert (handed[0].score_class, handed[0].num_shards, handed[0].shard_index) == ("target", 2, 1)
    assert handed[0].device == "cpu" and handed[0].batch_size is None, "its own batch"
    job.evaluate(SegmentationOptions, handed.append)
    assert handed[1].segmentation_root is None
    job.options = dataclasses.replace(job.options, evaluate=False)
    assert job.evaluate(PerturbationOptions, handed.append)[1] == {} and len(handed) == 2


def test_parts_of_a_batch_make_it_whole_again():
    batch = Batch(torch.rand(5, 3, 2, 2), torch.arange(5), list("abcde"), logits=torch.rand(5, 4))
    parts = list(batch.split(2))
    assert [part.names for part in parts] == [["a", "b"], ["c", "d"], ["e"]] and parts[0].scored is None
    whole = joined([brightness(part) for part in parts])
    assert torch.equal(whole.saliency["mean"], batch.images.mean(1))
    assert torch.equal(whole.figures["asked"], batch.classes)
