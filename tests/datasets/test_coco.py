import json

import numpy as np
import pytest
from PIL import Image

from ltx.config import UserError
from ltx.datasets.build import rebuild
from ltx.datasets.coco import SOURCE, CocoSegmentation
from ltx.tests.support.segmentation_sets import write_coco


@pytest.mark.parametrize("nested", [False, True])
def test_mask_is_the_union_of_polygons_and_crowds_in_both_layouts(tmp_path, nested, capsys):
    _, masks = write_coco(tmp_path, nested)
    for name, mask in masks.items():
        images = CocoSegmentation(tmp_path, mask.shape)
        sample = images[images.names.index(name)]
        np.testing.assert_array_equal(sample["mask"].numpy(), mask)
        assert sample["image"].shape == (3, *mask.shape) and sample["label"] == -1
        colour = (sample["image"].mean((1, 2)) * 255).numpy()
        np.testing.assert_allclose(colour, [200, 100, 10 * list(masks).index(name)], atol=4)
    assert capsys.readouterr().out == ""


def test_images_without_annotations_are_left_out_and_the_folder_itself_may_be_the_root(tmp_path):
    write_coco(tmp_path)
    images = CocoSegmentation(tmp_path / "coco", (8, 8))
    assert images.names == ["000000000009.jpg", "000000000025.jpg"]
    assert rebuild(images.describe(), (8, 8)).names == images.names


def test_labels_beside_the_annotations(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "coco" / "labels.csv").write_text(
        "img_name,label\n000000000025.jpg,17\n000000000009.jpg,3\n000000000030.jpg,2\n"
    )
    images = CocoSegmentation(tmp_path, (8, 8))
    assert images.labels == [3, 17] and images.has_labels and images[1]["label"] == 17


def _change(key, **values):
    """Changes the first entry of a list in the JSON; None removes a value."""

    def change(path):
        content = json.loads(path.read_text())
        content[key][0] |= values
        content[key][0] = {name: value for name, value in content[key][0].items() if value is not None}
        path.write_text(json.dumps(content))

    return change


def _without(key):
    def change(path):
        content = json.loads(path.read_text())
        del content[key]
        path.write_text(json.dumps(content))

    return change


def _image(path):
    return path.parents[1] / "val2017" / "000000000009.jpg"


def _move_images(path):
    _image(path).parent.rename(path.parent / "elsewhere")


def _cut_image(path):
    _image(path).write_bytes(_image(path).read_bytes()[:-200])


def _other_folder(path):
    path.parents[1].rename(path.parents[2] / "mscoco")


def _resize_image(path):
    Image.new("RGB", (9, 9)).save(_image(path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "COCO val2017 not found: looked for annotations/instances_val2017.json"),
        (lambda path: _image(path).unlink(), "annotations of 000000000009.jpg, which is not in .*val2017"),
        (
            _move_images,
            "images not found: looked for the folders .*coco/val2017 and .*coco/images/val2017; get",
        ),
        (lambda path: _image(path).write_bytes(b"no picture"), "cannot read image .*000000000009.jpg"),
        (_cut_image, "cannot read image .*000000000009.jpg"),
        (_other_folder, "COCO val2017 not found: looked for annotations/instances_val2017.json in "),
        (lambda path: path.write_bytes(b"\xff\xfe\xff"), "cannot read .*instances_val2017.json: .*utf-8"),
        (lambda path: path.write_text("{}"), "it has no 'images', only nothing"),
        (_resize_image, "is 9x9 .* its mask is 30x40"),
        (
            lambda path: path.write_text(path.read_text()[:-40]),
            "cannot read .*is the file whole.*cocodataset",
        ),
        (lambda path: path.write_text("[1, 2]"), "holds no COCO instances"),
        (_without("annotations"), "has no 'annotations'"),
        (_without("images"), "has no 'images'"),
    ],
)
def test_what_is_damaged_or_missing_is_one_line(tmp_path, spoil, message):
    path, _ = write_coco(tmp_path)
    spoil(path)
    with pytest.raises(UserError, match=message) as caught:
        CocoSegmentation(tmp_path, (8, 8))[0]
    line = str(caught.value)
    assert "\n" not in line and str(tmp_path) in line and f" from {SOURCE}" in line


RLE_OF_ANOTHER_SIZE = {"counts": [6, 6], "size": [3, 4]}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_change("annotations", image_id=77), "annotation 1 belongs to image 77, which the file does not"),
        (_change("annotations", image_id=None), "annotation 1 has no image_id"),
        (_change("annotations", id=None), "annotation without id has no id"),
        (_change("annotations", segmentation=None), "annotation 1 has no segmentation"),
        (_change("annotations", segmentation=[]), "annotation 1 has no polygon"),
        (_change("annotations", segmentation=RLE_OF_ANOTHER_SIZE), "annotation 1 is 3x4 and its image 30x40"),
        (_change("annotations", segmentation=[[1.0]]), "annotation 1 has fewer than three corners"),
        (_change("annotations", segmentation=[[5, 5, 5, 5, 5, 5]]), "annotation 1 has no area"),
    ],
)
def test_a_bad_annotation_costs_that_annotation(tmp_path, caplog, spoil, message):
    path, masks = write_coco(tmp_path)
    spoil(path)
    images = CocoSegmentation(tmp_path, (30, 40))
    assert message in caplog.text and str(path) in caplog.text
    assert images.names == list(masks)
    crowd = np.zeros((30, 40))
    crowd[20:25, 30:38] = 1
    np.testing.assert_array_equal(images[0]["mask"].numpy(), crowd)


def test_a_bad_polygon_costs_that_polygon(tmp_path, caplog):
    path, masks = write_coco(tmp_path)
    good = json.loads(path.read_text())["annotations"][0]["segmentation"]
    _change("annotations", segmentation=[*good, [5, 5, 5, 5, 5, 5], [1, 2]])(path)
    images = CocoSegmentation(tmp_path, (30, 40))
    np.testing.assert_array_equal(images[0]["mask"].numpy(), masks["000000000009.jpg"])
    assert "a polygon of annotation 1 that has no area" in caplog.text


def test_an_image_without_a_usable_annotation_is_left_out_and_named(tmp_path, caplog):
    path, _ = write_coco(tmp_path)
    _change("images", height=None)(path)
    assert CocoSegmentation(tmp_path, (8, 8)).names == ["000000000025.jpg"]
    assert "image 9 has no height" in caplog.text
