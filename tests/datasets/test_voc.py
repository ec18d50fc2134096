import numpy as np
import pytest
from PIL import Image

from ltx.config import UserError
from ltx.datasets.build import rebuild
from ltx.datasets.voc import SOURCE, VocSegmentation
from ltx.tests.support.segmentation_sets import write_voc


def test_objects_are_one_and_void_stays_void(tmp_path):
    _, palettes = write_voc(tmp_path)
    for i, name in enumerate(("2007_000033", "2007_000042")):
        images = VocSegmentation(tmp_path, palettes[name].shape)
        assert images.names == ["2007_000033", "2007_000042"] and images.has_void
        labels = palettes[name].astype(int)
        expected = np.where((labels > 0) & (labels < 255), 1, labels)
        np.testing.assert_array_equal(images[i]["mask"].numpy(), expected)
        assert set(np.unique(expected)) == {0, 1, 255}


def test_split_names_the_list_and_the_folder_above_the_devkit_may_be_the_root(tmp_path):
    write_voc(tmp_path)
    images = VocSegmentation(tmp_path / "voc", (8, 8), split="train")
    assert images.names == ["2007_000032"]
    again = rebuild(images.describe(), (8, 8))
    np.testing.assert_array_equal(again[0]["mask"], images[0]["mask"])


def test_blank_lines_of_the_list(tmp_path):
    tree, _ = write_voc(tmp_path)
    listed = tree / "ImageSets" / "Segmentation" / "val.txt"
    listed.write_text("\n" + listed.read_text() + "\n  \n")
    images = VocSegmentation(tmp_path, (8, 8))
    assert images.names == ["2007_000033", "2007_000042"]
    assert images[1]["mask"].max() > 0


def test_labels_in_the_tree(tmp_path):
    tree, _ = write_voc(tmp_path)
    (tree / "labels.csv").write_text("img_name,label\n2007_000042,9\n")
    assert VocSegmentation(tmp_path, (8, 8)).labels == [-1, 9]


LIST = "ImageSets/Segmentation/val.txt"
IMAGE, MASK = "JPEGImages/2007_000033.jpg", "SegmentationClass/2007_000033.png"


def _rename_tree(tree):
    tree.rename(tree.parent / "VOC2007")


def _cut_image(tree):
    (tree / IMAGE).write_bytes((tree / IMAGE).read_bytes()[:-100])


def _cut_mask(tree):
    (tree / MASK).write_bytes((tree / MASK).read_bytes()[:60])


def _lower_mask(tree):
    Image.new("P", (30, 23)).save(tree / MASK)


def _coloured_mask(tree):
    Image.new("RGB", (30, 24)).save(tree / MASK)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _rename_tree,
            "VOC2012 not found: looked for VOCdevkit/VOC2012.*get it from http.*segmentation-root",
        ),
        (lambda tree: (tree / LIST).unlink(), f"VOC2012 not found: looked for .*{LIST} in "),
        (lambda tree: (tree / LIST).write_text(""), "lists no images"),
        (lambda tree: (tree / MASK).unlink(), f"lists .*{MASK}, which does not exist"),
        (lambda tree: (tree / IMAGE).unlink(), f"lists .*{IMAGE}, which does not exist"),
        (lambda tree: (tree / IMAGE).write_text("no picture"), f"cannot read .*{IMAGE}"),
        (lambda tree: (tree / LIST).write_bytes(b"\xff\xfe"), f"cannot read .*{LIST}: "),
        (_cut_image, f"cannot read .*{IMAGE}"),
        (_cut_mask, f"cannot read .*{MASK}"),
        (_lower_mask, "is 24x30 .* its mask is 23x30"),
        (_coloured_mask, f"{MASK} is no mask: wanted a palette PNG, got mode RGB"),
    ],
)
def test_what_is_damaged_or_missing_is_one_line(tmp_path, spoil, message):
    tree, _ = write_voc(tmp_path)
    spoil(tree)
    with pytest.raises(UserError, match=message) as caught:
        VocSegmentation(tmp_path, (8, 8))[0]
    line = str(caught.value)
    assert "\n" not in line and str(tmp_path) in line and f" from {SOURCE}" in line


def test_unknown_split_is_one_line(tmp_path):
    write_voc(tmp_path)
    with pytest.raises(UserError, match="no segmentation split 'test'; choose from train, trainval, val"):
        VocSegmentation(tmp_path, (8, 8), split="test")
