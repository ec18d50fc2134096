"""Every layout of ImageNet's validation images, folders without labels, and what may be wrong with them."""

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import ImageFolder

from ltx.config import UserError
from ltx.datasets.base import to_tensor
from ltx.datasets.build import batches, open_images, rebuild
from ltx.datasets.imagenet import check_labels, class_names, open_folder, photograph_split, wnid_to_index

SIZE = (16, 24)
# WordNet ids and the class indices that ImageNet-1k gives them (tench, goldfish, tabby, toilet tissue).
KNOWN = {"n01440764": 0, "n01443537": 1, "n02123045": 281, "n15075141": 999}
FLAT = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 6)]


def write_meta(path, wnids_by_id: dict[int, str]) -> None:
    """`meta.mat` as in the development kit: a struct array (n, 1) of synsets, leaves and inner nodes."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O"),
             ("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O")]  # fmt: skip
    synsets = np.empty((len(wnids_by_id), 1), dtype=kinds)
    for row, (number, wnid) in zip(synsets[:, 0], wnids_by_id.items(), strict=True):
        inner = number > 1000
        children = np.array([[1, 2]], dtype=np.float64) if inner else np.zeros((1, 0))
        values = (np.uint16(number), wnid, f"name of {wnid}", "what it is", np.uint8(2 * inner), children,
                  np.uint8(inner), np.uint16(1300))  # fmt: skip
        for (name, _), value in zip(kinds, values, strict=True):
            row[name] = value
    savemat(path, {"synsets": synsets})


# Layouts.


def test_known_classes():
    assert len(wnid_to_index()) == 1000 and {wnid: wnid_to_index()[wnid] for wnid in KNOWN} == KNOWN
    assert class_names()[281].startswith("tabby") and class_names()[0].startswith("tench")


def test_class_folders(write_images):
    names = [f"{wnid}/{i}.JPEG" for wnid in KNOWN for i in range(2)]
    root = write_images(names)
    (root / "n01440764" / "notes.txt").write_text("no picture")
    (root / "n01440764" / "._0.JPEG").write_bytes(b"what macOS leaves behind")
    (root / ".cache").mkdir()
    images = open_folder(root, SIZE)
    assert images.names == names and images.labels == [0, 0, 1, 1, 281, 281, 999, 999]
    sample = images[4]
    assert sample["label"] == 281 and sample["index"] == 4
    assert torch.equal(sample["image"], to_tensor(Image.open(root / names[4]), SIZE))


@pytest.mark.parametrize("place", ["inside", "beside", "given"])
def test_flat_folder_with_a_csv(write_images, tmp_path, place):
    root = write_images(FLAT)
    path = {"inside": root, "beside": tmp_path, "given": tmp_path / "x"}[place] / "labels.csv"
    path.parent.mkdir(exist_ok=True)
    rows = [f"{name},{label}" for name, label in zip(FLAT[::-1], (65, 970, 230, 809, 516), strict=True)]
    path.write_text("img_name,label\n" + "\n".join(rows) + "\n")
    (root / ".hidden").mkdir()
    images = open_folder(root, SIZE, path if place == "given" else None)
    assert images.names == FLAT[::-1] and images.labels == [65, 970, 230, 809, 516]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_with_more_columns_and_windows_habits(write_images, encoding):
    root = write_images(FLAT)
    text = "img_name,number,label,what\r\n" + "".join(f"{name},9, {i} ,x\r\n" for i, name in enumerate(FLAT))
    (root / "labels.csv").write_bytes(text.encode(encoding))
    assert open_folder(root, SIZE).labels == [0, 1, 2, 3, 4]


def test_csv_with_splits(write_images):
    root = write_images(FLAT)
    splits = ["train", "train", "tune", "report", "tune"]
    rows = [f"{name},{i},{split}" for i, (name, split) in enumerate(zip(FLAT, splits, strict=True))]
    (root / "labels.csv").write_text("img_name,label,split\n" + "\n".join(rows) + "\n")
    assert open_folder(root, SIZE, split="tune").labels == [2, 4]
    assert len(open_folder(root, SIZE)) == 5
    with pytest.raises(UserError, match=r"--split test: .*labels.csv has only report, train, tune"):
        open_folder(root, SIZE, split="test")


def test_photographs_are_split_by_the_sha1_of_their_name(write_images):
    names = {"none": 0, "train": 0, "tune": 0, "report": 0}
    for i in range(300):
        name = f"n0{i}_photo.jpg"
        remainder = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 5
        expected = "train" if remainder in (1, 2) else {0: "none", 3: "tune", 4: "report"}[remainder]
        assert photograph_split(name) == photograph_split(f"folder/{name}") == expected
        names[expected] += 1
    assert min(names.values()) > 30
    root = write_images(FLAT)
    (root / "labels.csv").write_text("img_name,label\n" + "".join(f"{name},1\n" for name in FLAT))
    for split in {photograph_split(name) for name in FLAT}:
        wanted = [name for name in FLAT if photograph_split(name) == split]
        assert open_folder(root, SIZE, split=split).names == wanted


def test_development_kit(write_images, tmp_path):
    """ILSVRC2012 ids are in an order of their own; the ground truth lists them in the order of file names."""
    root, kit = write_images(FLAT[::-1]), tmp_path / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    write_meta(
        kit / "meta.mat", {1: "n02123045", 2: "n15075141", 3: "n01443537", 4: "n01440764", 1001: "n00001740"}
    )
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("4\n1\n2\n3\n1\n")
    images = open_folder(root, SIZE, truth)
    assert images.names == FLAT and images.labels == [0, 281, 999, 1, 281]


def test_development_kit_with_a_single_synset(write_images, tmp_path):
    root = write_images(FLAT[:1])
    write_meta(tmp_path / "meta.mat", {1: "n02123045"})
    (tmp_path / "truth.txt").write_text("1\n")
    assert open_folder(root, SIZE, tmp_path / "truth.txt").labels == [281]


def test_folder_without_labels(write_images):
    root = write_images(["b.png", "a.jpg", "c.WEBP"])
    images = open_folder(root, SIZE)
    assert (
        images.names == ["a.jpg", "b.png", "c.WEBP"] and images.labels == [-1] * 3 and not images.has_labels
    )


@pytest.mark.parametrize("layout", ["folders", "csv", "kit", "plain"])
def test_a_set_can_be_made_again_from_its_description(write_images, tmp_path, layout):
    labels = None
    if layout == "folders":
        root = write_images([f"{wnid}/{i}.png" for wnid in KNOWN for i in range(2)])
    else:
        root = write_images(FLAT)
    if layout == "csv":
        labels = tmp_path / "x.csv"
        labels.write_text(
            "img_name,label,split\n" + "".join(f"{name},{i},a\n" for i, name in enumerate(FLAT))
        )
    if layout == "kit":
        write_meta(tmp_path / "meta.mat", {1: "n02123045"})
        labels = tmp_path / "truth.txt"
        labels.write_text("1\n" * 5)
    images = open_images(str(root), labels, "a" if layout == "csv" else None, SIZE, digits=False)
    again = rebuild(images.describe(), SIZE)
    assert (again.names, again.labels) == (images.names, images.labels)
    assert torch.equal(again[1]["image"], images[1]["image"])


def test_digits_by_name_and_by_default(places, write_images):
    for path, default in (("digits", False), (None, True)):
        images = open_images(path, None, None, (64, 64), default)
        assert images.describe()["kind"] == "digits" and images.split == "test" and len(images) == 397
        assert torch.equal(rebuild(images.describe(), (64, 64))[3]["image"], images[3]["image"])
    write_images(["n01440764/a.png"], places / "data" / "imagenet" / "val")
    assert open_images(None, None, None, SIZE, False).labels == [0]


# Label files of all 50,000 images, and a folder that holds some of them.

SOME = [FLAT[1], FLAT[4]]


def all_names() -> list[str]:
    return [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 50_001)]


@pytest.mark.parametrize("kind", ["val ground truth.txt", "val_ground_truth_2012.csv"])
def test_label_files_of_the_published_repository(write_images, tmp_path, kind, caplog):
    """A name and a class index on each line, and the same as a CSV with a header and a byte order mark."""
    root, path = write_images(SOME), tmp_path / kind
    separator, header = (" ", "") if path.suffix == ".txt" else (",", "\ufeffimg_name,label\n")
    rows = [f"{name}{separator}{i % 1000}" for i, name in enumerate(all_names())]
    path.write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    images = open_folder(root, SIZE, path)
    assert images.names == SOME and images.labels == [1, 4]
    assert "labels 50000 images, of which 2 are in" in caplog.text
    again = rebuild(images.describe(), SIZE)
    assert (again.names, again.labels) == (images.names, images.labels)
    write_images(["cat.png"], root)
    message = line(open_folder, root, SIZE, path)
    assert "has no label for image cat.png" in message and str(path) in message


def test_the_development_kits_labels_of_a_part_of_the_images(write_images, tmp_path):
    write_meta(tmp_path / "meta.mat", {1: "n02123045", 2: "n15075141"})
    truth = tmp_path / "truth.txt"
    truth.write_text("1\n2\n1\n1\n2\n" + "1\n" * 49_995)
    images = open_folder(write_images(SOME), SIZE, truth)
    assert images.names == SOME and images.labels == [999, 999]


def test_a_label_file_with_none_of_the_images(write_images, tmp_path):
    (tmp_path / "x.csv").write_text("img_name,label\nn01440764/a.png,1\n")
    root = write_images(["n01440764/b.png"])
    assert "names n01440764/a.png, which is not in" in line(open_folder, root, SIZE, tmp_path / "x.csv")


@pytest.mark.parametrize(
    "text, expected", [("a.png 1\nb.png\n", "got 'b.png'"), ("a.png one\n", "label 'one' of")]
)
def test_bad_lists_of_names_and_classes(write_images, tmp_path, text, expected):
    (tmp_path / "x.txt").write_text(text)
    assert expected in line(open_folder, write_images(["a.png"]), SIZE, tmp_path / "x.txt")


# Bad input: each one clear line.


def line(call, *arguments, **more) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_images(places, tmp_path):
    assert "no such folder of images" in line(open_folder, tmp_path / "nothing", SIZE)
    message = line(open_images, None, None, None, SIZE, False)
    assert str(places / "data" / "imagenet" / "val") in message and "--images-path" in message


def test_a_folder_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"no images in {tmp_path / 'empty'}" in line(open_folder, tmp_path / "empty", SIZE)
    (tmp_path / "empty" / "n01440764").mkdir()
    assert "no images in" in line(open_folder, tmp_path / "empty", SIZE)
    file = tmp_path / "file.png"
    file.write_bytes(b"")
    assert "no such folder of images" in line(open_folder, file, SIZE)


def test_class_folders_of_any_names_are_classes_in_order(write_images):
    """As torchvision's ImageFolder has them."""
    root = write_images(["dog/a.png", "cat/b.png", "cat/c.png", "emu/d.png"])
    images = open_folder(root, SIZE)
    theirs = ImageFolder(root)
    assert images.class_names == theirs.classes == ["cat", "dog", "emu"]
    assert list(zip(images.names, images.labels, strict=True)) == [
        (str(Path(path).relative_to(root)), label) for path, label in theirs.samples
    ]
    check_labels(images, 3)
    with pytest.raises(UserError, match=r"3 class folders \(cat, dog, emu\) and the explainee 5 classes"):
        check_labels(images, 5)


@pytest.mark.parametrize("separator", [",", ";", "\t", " , "])
def test_label_files_of_other_programs(separator, write_images, tmp_path):
    root = write_images(FLAT)
    rows = [separator.join(("img_name", "label")), *(f"{name}{separator}{i}" for i, name in enumerate(FLAT))]
    (tmp_path / "own.csv").write_text("\ufeff" + "\r\n".join([*rows, "", ""]), encoding="utf-8")
    images = open_folder(root, SIZE, tmp_path / "own.csv")
    assert images.names == list(FLAT) and images.labels == list(range(len(FLAT)))


def test_a_class_folder_that_is_no_imagenet_id(write_images):
    root = write_images(["n01440764/a.png", "cats/b.png"])
    message = line(open_folder, root, SIZE)
    assert "cats is no ImageNet id" in message and "n01440764" in message


def test_missing_labels_file(write_images, tmp_path):
    message = line(open_folder, write_images(FLAT), SIZE, tmp_path / "none.csv")
    assert "no such labels file" in message and "none.csv" in message


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "needs the columns img_name,label"),
        ("a,b\n1,2\n", "needs the columns img_name,label"),
        ("img_name,label\n", "at least one row"),
        ("img_name,label\nILSVRC2012_val_00000001.JPEG,cat\n", "label 'cat' of ILSVRC2012_val_00000001.JPEG"),
        ("img_name,label\nILSVRC2012_val_00000001.JPEG,\n", "label '' of"),
        ("img_name,label\nILSVRC2012_val_00000001.JPEG\n", "label '' of"),
        ("img_name,label\nILSVRC2012_val_00000001.JPEG,-2\n", "label '-2' of"),
        ("img_name,label\nILSVRC2012_val_00000001.JPEG,1.5\n", "label '1.5' of"),
        ("img_name,label\nILSVRC2012_val_00000001.JPEG,--1\n", "label '--1' of"),
        ("img_name,label\nILSVRC2012_val_00000001.JPEG,²\n", "label '²' of"),
        ("img_name,label\nnothing.png,1\n", "has no label for image ILSVRC2012_val_00000001.JPEG"),
        ("img_name,label\n,1\n", "has no label for image ILSVRC2012_val_00000001.JPEG"),
    ],
)  # fmt: skip
def test_bad_csv(write_images, tmp_path, text, expected):
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    message = line(open_folder, write_images(FLAT[:1]), SIZE, path)
    assert expected in message and "x.csv" in message


def test_a_csv_that_is_none(write_images, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(bytes(range(256)) * 4)
    assert "x.csv" in line(open_folder, write_images(FLAT), SIZE, path)


def test_bad_development_kits(write_images, tmp_path):
    root, truth = write_images(FLAT), tmp_path / "truth.txt"
    truth.write_text("1\n" * 5)
    assert "meta.mat not found" in line(open_folder, root, SIZE, truth)
    (tmp_path / "meta.mat").write_bytes(b"not a mat file" * 20)
    assert "cannot read" in line(open_folder, root, SIZE, truth)
    write_meta(tmp_path / "meta.mat", {1: "n02123045", 1001: "n00001740"})
    truth.write_text("1\n" * 4)
    assert "has 4 labels" in line(open_folder, root, SIZE, truth)  # the fifth image has none
    truth.write_text("1\n" * 9)
    write_images(["cat.JPEG"], root)
    message = line(open_folder, root, SIZE, truth)
    assert "has 9 labels" in message and "cat.JPEG does not tell" in message
    (root / "cat.JPEG").unlink()
    truth.write_text("")
    assert "is empty" in line(open_folder, root, SIZE, truth)
    truth.write_text("1\n" * 4)
    truth.write_text("1\n" * 4 + "7\n")
    assert "class 7 is not one of" in line(open_folder, root, SIZE, truth)
    truth.write_text("1\n" * 4 + "1001\n")
    assert "class 1001 is not one of" in line(open_folder, root, SIZE, truth)
    truth.write_text("1\n" * 4 + "one\n")
    assert "cannot read" in line(open_folder, root, SIZE, truth)
    assert "needs a labels CSV" in line(open_folder, root, SIZE, truth, "train")


def test_splits_need_a_csv(write_images):
    assert "--split train needs a labels CSV" in line(open_folder, write_images(FLAT), SIZE, split="train")


def test_a_label_outside_the_classes(write_images):
    images = open_folder(write_images(["n01440764/a.png", "n15075141/b.png"]), SIZE)
    check_labels(images, 1000)
    message = line(check_labels, images, 999)
    assert message == "label 999 of image n15075141/b.png is outside the explainee's 999 classes"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "gone"])
def test_an_unreadable_image(write_images, workers, damage):
    root = write_images(["a.png", "b.jpg", "c.png"])
    images = open_folder(root, SIZE)
    content = (root / "b.jpg").read_bytes()
    (root / "b.jpg").write_bytes({"cut": content[:-80], "text": b"hello", "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        (root / "b.jpg").unlink()
    message = line(list, batches(images, [0, 1, 2], 2, workers))
    assert message.startswith(("cannot read image", "no such image")) and "b.jpg" in message
    assert not multiprocessing.active_children()  # the workers have ended at once


def test_a_set_whose_files_are_gone(write_images):
    import shutil

    images = open_folder(write_images(FLAT), SIZE)
    shutil.rmtree(images.root)
    assert "no such folder of images" in line(rebuild, images.describe(), SIZE)
    assert "unknown kind" in line(rebuild, {"kind": "video"}, SIZE)
