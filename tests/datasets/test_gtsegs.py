import pickle

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from torch.utils.data import DataLoader

from ltx.config import UserError
from ltx.datasets import gtsegs
from ltx.datasets.build import open_segmentation, rebuild
from ltx.datasets.gtsegs import FILE, SOURCE, ImagenetSegmentation
from ltx.tests.support.segmentation_sets import MATLAB_HEADER, pictures, write_gtsegs

SIZES = [(20, 30), (20, 30), (12, 8), (16, 16), (10, 18)]


@pytest.fixture
def images_and_masks():
    return pictures(SIZES)


@pytest.fixture
def root(tmp_path, images_and_masks):
    write_gtsegs(tmp_path / FILE, *images_and_masks)
    return tmp_path


def test_images_and_masks_keep_their_orientation(root, images_and_masks):
    images, masks = images_and_masks
    for i, size in enumerate(SIZES):
        sample = ImagenetSegmentation(root, size)[i]
        assert sample["image"].shape == (3, *size)
        np.testing.assert_array_equal((sample["image"].numpy() * 255).round(), images[i].transpose(2, 0, 1))
        np.testing.assert_array_equal(sample["mask"].numpy(), masks[i])
        assert (sample["label"], sample["index"]) == (-1, i)


def test_labels_are_resized_by_nearest_neighbour(root, images_and_masks):
    mask = ImagenetSegmentation(root, (40, 60))[0]["mask"].numpy()
    np.testing.assert_array_equal(mask, images_and_masks[1][0].repeat(2, axis=0).repeat(2, axis=1))


def test_references_may_lie_in_a_row_and_pixels_may_be_ignored(tmp_path):
    images, masks = pictures([(6, 8)])
    signed = masks[0].astype(np.int16)
    signed[0, 0] = -1
    signed[3, 7] = 4
    path = write_gtsegs(tmp_path / FILE, images, [signed])
    with h5py.File(path, "r+") as file:
        references = file["value/img"][()]
        del file["value/img"]
        file["value"].create_dataset("img", data=references.T, dtype=h5py.ref_dtype)
    mask = ImagenetSegmentation(tmp_path, (6, 8))[0]["mask"].numpy()
    expected = masks[0].astype(int)
    expected[0, 0], expected[3, 7] = -1, 1
    np.testing.assert_array_equal(mask, expected)


def test_labels_beside_the_file(root):
    (root / "labels.csv").write_text("index,label,name\n0,32,frog\n3,7,cock\n")
    images = ImagenetSegmentation(root, (8, 8))
    assert images.labels == [32, -1, -1, 7, -1] and not images.has_labels
    (root / "other.csv").write_text("index,label\n" + "".join(f"{i},{i}\n" for i in range(5)))
    assert ImagenetSegmentation(root, (8, 8), labels_path=root / "other.csv").labels == [0, 1, 2, 3, 4]


def test_split_is_the_parity_of_the_index_unless_the_labels_name_one(root):
    assert ImagenetSegmentation(root, (8, 8), split="tune").names == ["0", "2", "4"]
    report = ImagenetSegmentation(root, (8, 8), split="report")
    assert report.names == ["1", "3"]
    np.testing.assert_array_equal(report[1]["image"], ImagenetSegmentation(root, (8, 8))[3]["image"])
    (root / "labels.csv").write_text("index,label,split\n0,1,train\n1,2,report\n4,3,train\n")
    images = ImagenetSegmentation(root, (8, 8), split="train")
    assert (images.names, images.labels) == (["0", "4"], [1, 3])
    with pytest.raises(UserError, match=r"--split tune: .* has only report, train"):
        ImagenetSegmentation(root, (8, 8), split="tune")


def test_the_same_set_is_rebuilt_from_its_description(root):
    (root / "labels.csv").write_text("index,label\n1,5\n")
    images = open_segmentation("imagenet", root, None, "report", (8, 8))
    again = rebuild(images.describe(), (8, 8))
    assert (again.names, again.labels) == (images.names, images.labels) == (["1", "3"], [5, -1])
    assert again.describe() == images.describe()


def test_file_is_opened_once_per_process_and_by_each_worker(root, monkeypatch):
    opened = []
    true_file = h5py.File
    monkeypatch.setattr(gtsegs.h5py, "File", lambda *args: opened.append(args) or true_file(*args))
    images = ImagenetSegmentation(root, (8, 8))
    before = len(opened)
    alone = [images[i]["image"] for i in range(5)]
    assert len(opened) == before + 1
    copy = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(copy[4]["image"], alone[4])
    by_workers = [batch["image"][0] for batch in DataLoader(images, batch_size=1, num_workers=2)]
    for mine, theirs in zip(alone, by_workers, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _absent(path, images, masks):
    pass


def _truncated(path, images, masks):
    write_gtsegs(path, images, masks)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _matlab_5(path, images, masks):
    savemat(path, {"value": {"img": images[0], "gt": masks[0]}})


def _no_matlab_file(path, images, masks):
    path.write_text("<html>404</html>")


def _other_keys(path, images, masks):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["value/img"] = np.zeros(3)
        file["segments"] = np.zeros(3)
    with open(path, "r+b") as file:
        file.write(MATLAB_HEADER)


def _value_is_no_group(path, images, masks):
    with h5py.File(path, "w") as file:
        file["value"] = np.zeros(3)


def _empty(path, images, masks):
    path.touch()


def _other_folder(path, images, masks):
    path.parent.joinpath("data").mkdir()
    write_gtsegs(path.parent / "data" / FILE, images, masks)


def _no_references(path, images, masks):
    with h5py.File(path, "w") as file:
        file["value/img"], file["value/gt"] = np.zeros((2, 1)), np.zeros((2, 1))


def _mask_of_another_size(path, images, masks):
    write_gtsegs(path, images, [*masks[:2], masks[2][1:], *masks[3:]])


def _fewer_masks(path, images, masks):
    write_gtsegs(path, images, masks[:3])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_absent, f"not found: looked for .*{FILE}; get it from {SOURCE} and pass .*--segmentation-root"),
        (_truncated, f"cannot read .*{FILE}: .*is the file whole.*{SOURCE}"),
        (_matlab_5, f"cannot read .*{FILE}: it is a MATLAB 5 file, wanted v7.3"),
        (_no_matlab_file, "it is no MATLAB v7.3"),
        (_other_keys, "has no value/gt, only .*segments.*value/img"),
        (_value_is_no_group, "has no value/img and no value/gt, only value;"),
        (_empty, "it is no MATLAB v7.3"),
        (_other_folder, f"not found: looked for .*{FILE}; get it"),
        (_no_references, "cannot read"),
        (_mask_of_another_size, "image 2 of .* is 12x8 .* its mask is 11x8"),
        (_fewer_masks, "holds 5 images and 3 masks"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_one_line(tmp_path, images_and_masks, spoil, message):
    spoil(tmp_path / FILE, *images_and_masks)
    with pytest.raises(UserError, match=message) as caught:
        ImagenetSegmentation(tmp_path, (8, 8))
    line = str(caught.value)
    assert "\n" not in line and str(tmp_path / FILE) in line and f" from {SOURCE}" in line


def test_pixels_that_turn_out_damaged_are_one_line(tmp_path, images_and_masks):
    path = write_gtsegs(tmp_path / FILE, *images_and_masks)
    with h5py.File(path, "r+") as file:
        pixels = file["#refs#/i1"][()]
        del file["#refs#/i1"]
        stored = file["#refs#"].create_dataset("i1", data=pixels, chunks=pixels.shape, compression="gzip")
        file["value/img"][1, 0] = stored.ref
        chunk = stored.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    start = 512 + chunk.byte_offset if content[:3] == b"MAT" else chunk.byte_offset
    content[start : start + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    images = ImagenetSegmentation(tmp_path, (8, 8))
    with pytest.raises(UserError, match=f"cannot read image 1 of .*{FILE}: .* from {SOURCE}") as caught:
        images[1]
    assert "\n" not in str(caught.value) and images[0]["mask"].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,label\n9,1\n", "labels image '9', which is not in"),
        ("index,label\n1,cat\n", "label 'cat' of 1 is no class index"),
        ("image,label\n1,3\n", "needs the columns index,label"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(root, text, message):
    (root / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        ImagenetSegmentation(root, (8, 8))
