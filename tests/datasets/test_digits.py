"""Digits on photographs: the same for the same index, true labels, exact masks, splits that share nothing."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from ltx.config import UserError
from ltx.datasets import digits as module
from ltx.datasets.build import batches, rebuild
from ltx.datasets.digits import MIXED, DigitsOnPhotos


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])) for key in first
    )


@pytest.mark.parametrize(
    "arguments", [{}, {"augment": True, "draw": 3, "split": "train"}, {"n_digits": 2}], ids=str
)
def test_same_index_same_sample(arguments):
    first, second = DigitsOnPhotos(**arguments), DigitsOnPhotos(**arguments)
    later = [second[i] for i in (7, 3, 0)]  # in another order, after other samples
    assert all(same(first[i], sample) for i, sample in zip((7, 3, 0), later, strict=True))


def test_a_longer_set_begins_with_the_shorter_one():
    assert same(DigitsOnPhotos("test", 5)[4], DigitsOnPhotos("test", 1000)[4])


def test_worker_processes_change_nothing():
    images = DigitsOnPhotos("test", 6)
    plain, workers = (torch.cat([b["image"] for b in batches(images, [5, 1, 0, 2], 3, n)]) for n in (0, 2))
    assert torch.equal(plain, workers)


def test_sample_content():
    sample = DigitsOnPhotos("test")[0]
    assert sample["image"].shape == (3, 64, 64) and sample["image"].dtype == torch.float32
    assert sample["image"].min() >= 0 and sample["image"].max() <= 1
    assert sample["mask"].shape == (64, 64) and set(sample["mask"].unique().tolist()) == {0, 1}
    assert sample["index"] == 0 and 0 <= sample["label"] <= 9


def test_sizes_and_names():
    assert [len(DigitsOnPhotos(split)) for split in ("train", "test", "fit", "tune")] == [
        1400,
        397,
        1200,
        200,
    ]
    images = DigitsOnPhotos("test", 1000)
    assert len(set(images.names)) == 1000 and images.has_labels and images.has_masks


def test_splits_share_no_digit():
    ids = {split: set(module._digit_ids(split).tolist()) for split in ("train", "test", "fit", "tune")}
    assert not ids["train"] & ids["test"] and not ids["fit"] & ids["tune"]
    assert ids["fit"] | ids["tune"] == ids["train"] and len(ids["train"] | ids["test"]) == 1797


def test_rounds_and_draws_show_the_same_digits_on_other_backgrounds():
    images, other = DigitsOnPhotos("test", 397 * 2), DigitsOnPhotos("test", draw=1)
    assert images.labels[:397] == images.labels[397:] == other.labels
    assert not torch.equal(images[0]["image"], images[397]["image"])
    assert not torch.equal(images[0]["image"], other[0]["image"])


def box(image: np.ndarray) -> np.ndarray:
    """What a bounding box holds, at 12x12."""
    rows, columns = (np.flatnonzero((image > 0.5).any(axis)) for axis in (1, 0))
    crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    return np.asarray(Image.fromarray(crop).resize((12, 12), Image.Resampling.BILINEAR)).flatten()


@pytest.mark.parametrize("n_digits", [1, 2])
def test_labels_are_what_the_masks_show(n_digits):
    """Nearest neighbour of each mask among scikit-learn's digits, by an outline of its own making."""
    data = load_digits()
    known = np.stack([box(image / 16) for image in data.images])
    samples = [DigitsOnPhotos("test", n_digits=n_digits)[i] for i in range(60)]
    shown = [(s["mask"], s["label"]) for s in samples]
    if n_digits == 2:
        shown += [(s["second_mask"], s["second_label"]) for s in samples]
    right = [
        data.target[((known - box(mask.numpy().astype(float))) ** 2).sum(1).argmin()] == label
        for mask, label in shown
    ]
    assert np.mean(right) > 0.9


def test_masks_cover_the_bright_pixels_exactly():
    """More than half digit means half of the digit's brightness (200) or more; elsewhere it is darker."""
    for i in range(20):
        sample = DigitsOnPhotos("test")[i]
        on, off = sample["image"][:, sample["mask"] == 1], sample["image"][:, sample["mask"] == 0]
        assert on.min() >= 100 / 255 - 1e-6
        assert off.max() <= (0.5 * 255 + 0.5 * 0.6 * 255) / 255 + 1e-2
        assert 20 < sample["mask"].sum() < 1200
        edge = torch.cat([sample["mask"][0], sample["mask"][-1], sample["mask"][:, 0], sample["mask"][:, -1]])
        assert edge.sum() == 0  # wholly inside


def test_backgrounds_come_from_separate_halves(monkeypatch):
    """On photographs that are black on the left and white on the right, training sees black, testing grey."""
    photo = np.zeros((427, 640, 3), dtype=np.uint8)
    photo[:, 320:] = 255
    monkeypatch.setattr(module, "_photographs", lambda: (photo, photo))
    for split in ("train", "fit", "tune"):
        corners = [DigitsOnPhotos(split)[i]["image"][:, 0, 0].max() for i in range(10)]
        assert max(corners) == 0
    corners = [DigitsOnPhotos("test")[i]["image"][:, 0, 0].min() for i in range(10)]
    assert min(corners) > 0.29 and max(corners) < 0.61


def test_two_digits_of_different_classes_side_by_side():
    images = DigitsOnPhotos("test", n_digits=2)
    for i in range(20):
        sample = images[i]
        assert sample["label"] != sample["second_label"] and sample["label"] == images.labels[i]
        assert (sample["mask"] * sample["second_mask"]).sum() == 0
        left, right = (sample[key].nonzero()[:, 1].float().mean() for key in ("mask", "second_mask"))
        assert left < 32 < right


def test_other_image_sizes():
    sample = DigitsOnPhotos("test", image_size=(32, 96))[0]
    assert sample["image"].shape == (3, 32, 96) and sample["mask"].shape == (32, 96)


def test_unknown_split():
    with pytest.raises(
        UserError, match="digits have no split 'validation'; choose from train, test, fit, tune"
    ):
        DigitsOnPhotos("validation")
    with pytest.raises(IndexError):
        DigitsOnPhotos("test", 3)[3]


def test_mixed_pictures_are_those_of_one_digit_and_of_two_in_turn():
    mixed, one, two = (DigitsOnPhotos("tune", 600, n_digits=n) for n in (MIXED, 1, 2))
    for index in (0, 199, 400):
        sample = mixed[index]
        assert torch.equal(sample["image"], one[index]["image"])
        assert sample["second_label"] == -1 and not sample["second_mask"].any()
        assert sample.keys() == mixed[200].keys()
    for index in (200, 399):
        assert torch.equal(mixed[index]["image"], two[index]["image"])
        assert mixed[index]["second_label"] == two[index]["second_label"]
    assert mixed.labels == one.labels and mixed.describe()["n_digits"] == MIXED
    assert torch.equal(rebuild(mixed.describe(), (64, 64))[200]["image"], mixed[200]["image"])
