"""Folders of pictures: ImageNet's layouts with labels, or any folder without."""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo

from ltx.config import UserError
from ltx.datasets.base import NO_LABEL, ImageSet, to_tensor
from ltx.datasets.labels import class_index, read_label_rows
from ltx.datasets.pictures import EXTENSIONS, file_of, is_within, pictures_in, read_image, shown_name

log = logging.getLogger(__name__)

_SECONDS = 60  # to read a file of less than a megabyte


class FolderImages(ImageSet):
    """Pictures below a folder, read when asked for.

    Args:
        root: the folder.
        names: paths relative to `root`.
        labels: class of each, -1 for none.
        image_size: (H, W).
        source: how the set was found, for `describe`.
        class_names: names of the class folders that gave the labels; None for ImageNet ids and label files.
    """

    def __init__(
        self,
        root: Path,
        names: list[str],
        labels: list[int],
        image_size: tuple[int, int],
        source: dict,
        class_names: list[str] | None = None,
    ):
        super().__init__(image_size)
        self.root, self.names, self.labels, self._source = Path(root), names, labels, source
        self.class_names = class_names

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(file_of(self.root, self.names[index]))
        return {"image": to_tensor(image, self.image_size), "label": self.labels[index], "index": index}

    def describe(self) -> dict[str, Any]:
        return {"kind": "folder", **self._source}


def open_folder(
    images_path: Path, image_size: tuple[int, int], labels_path: Path | None = None, split: str | None = None
) -> FolderImages:
    """Find out how a folder of pictures is laid out.

    With `labels_path`: a CSV with columns `img_name,label` (and perhaps `split`), a text file with a name
    and a class on each line, or the development kit's `ILSVRC2012_validation_ground_truth.txt`, a number on
    each, with `meta.mat` beside it. Each may label more images than the folder holds. Without: class folders
    (WordNet ids, or any names, whose order gives the classes), else `labels.csv` in the folder or beside it,
    else pictures without labels.

    Args:
        images_path: folder of pictures or class folders.
        image_size: (H, W).
        labels_path: file of labels.
        split: keep only the pictures of this `split` (column of the CSV).

    Raises:
        UserError: nothing there, a label file that does not fit, or class folders that are only in part
            ImageNet ids.
    """
    root = Path(images_path)
    if not root.is_dir():
        raise UserError(f"no such folder of images: {root}; pass one with --images-path")
    source = {"root": str(root.resolve()), "labels": None, "split": split}
    if labels_path is None and not _folders(root):
        labels_path = next(
            (path for path in (root / "labels.csv", root.parent / "labels.csv") if path.is_file()), None
        )
    class_names = None
    if labels_path is not None:
        source["labels"] = str(Path(labels_path).resolve())
        names, labels = _with_label_file(root, Path(labels_path), split)
    elif split is not None:
        raise UserError(
            f"--split {split} needs a labels CSV with a column 'split'; pass it with --labels-path"
        )
    else:
        names, labels, class_names = _without_label_file(root)
    if not names:
        raise UserError(f"no images in {root} (looked for {', '.join(sorted(EXTENSIONS))})")
    return FolderImages(root, names, labels, image_size, source, class_names)


def check_labels(images: ImageSet, num_classes: int) -> None:
    """Check that labels are classes of the explainee.

    Raises:
        UserError: a label is outside the classes, or labels come from class folders of another number.
    """
    folders = images.class_names if isinstance(images, FolderImages) else None
    if folders is not None and len(folders) != num_classes:
        raise UserError(
            f"{images.root} has {len(folders)} class folders ({', '.join(folders[:5])}"
            f"{', ...' if len(folders) > 5 else ''}) and the explainee {num_classes} classes, so their order "
            "does not tell the classes; pass --labels-path"
        )
    for name, label in zip(images.names, images.labels, strict=True):
        if label >= num_classes:
            raise UserError(f"label {label} of image {name} is outside the explainee's {num_classes} classes")


@cache
def wnid_to_index() -> dict[str, int]:
    """WordNet id to class index of ImageNet-1k."""
    info = ImageNetInfo()
    return {info.index_to_label_name(index): index for index in range(info.num_classes())}


def class_names() -> list[str]:
    """ImageNet-1k class names in order."""
    info = ImageNetInfo()
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _folders(root: Path) -> list[Path]:
    """Class folders: a folder that has the name of a picture is none, and will be named as a bad image."""
    return sorted(
        path
        for path in root.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.suffix.lower() not in EXTENSIONS
    )


def _without_label_file(root: Path) -> tuple[list[str], list[int], list[str] | None]:
    """Names, labels and class names from class folders: ImageNet ids, else their order (as torchvision)."""
    folders = _folders(root)
    if not folders:
        names = [shown_name(path.name) for path in pictures_in(root)]
        return names, [NO_LABEL] * len(names), None
    known = [folder.name in wnid_to_index() for folder in folders]
    if any(known) and not all(known):
        wrong = folders[known.index(False)]
        raise UserError(
            f"class folder {wrong} is no ImageNet id, unlike others in {root}; rename it to one "
            "(n01440764), or pass --labels-path"
        )
    class_names = None if all(known) else [folder.name for folder in folders]
    classes = {name: index for index, name in enumerate(class_names)} if class_names else wnid_to_index()
    names, labels = [], []
    for folder in folders:
        found = [shown_name(f"{folder.name}/{path.name}") for path in pictures_in(folder)]
        names += found
        labels += [classes[folder.name]] * len(found)
    return names, labels, class_names


def _with_label_file(root: Path, labels_path: Path, split: str | None) -> tuple[list[str], list[int]]:
    if not labels_path.is_file():
        raise UserError(f"no such labels file: {labels_path}; pass one with --labels-path")
    if labels_path.suffix.lower() == ".txt":
        if split is not None:
            raise UserError(f"--split {split} needs a labels CSV with a column 'split', not {labels_path}")
        return _text_labels(root, labels_path)
    return _csv_labels(root, labels_path, split)


def _csv_labels(root: Path, path: Path, split: str | None) -> tuple[list[str], list[int]]:
    rows = read_label_rows(path, "img_name")
    _check_all_labelled(root, path, {str(Path(row["img_name"] or "")) for row in rows})
    if split is not None:
        splits = {row.get("split") or photograph_split(row["img_name"]) for row in rows}
        if split not in splits:
            raise UserError(f"--split {split}: {path} has only {', '.join(sorted(splits))}")
        rows = [row for row in rows if (row.get("split") or photograph_split(row["img_name"])) == split]
    return _of_files(root, path, [(row["img_name"], row["label"]) for row in rows])


def _of_files(root: Path, path: Path, labelled: list[tuple[str, str | None]]) -> tuple[list[str], list[int]]:
    """Names and classes of the labelled images that are in a folder."""
    names, labels = [], []
    for name, label in labelled:
        if not is_within(name):
            raise UserError(f"{path} names {name}, which is outside {root}")
        if name and os.path.lexists(file_of(root, name)):
            names.append(name)
            labels.append(class_index(path, name, label))
    if not names:
        raise UserError(f"{path} names {labelled[0][0]}, which is not in {root}, nor is any other it names")
    if len(names) < len(labelled):
        log.warning("%s labels %d images, of which %d are in %s", path, len(labelled), len(names), root)
    return names, labels


def _check_all_labelled(root: Path, path: Path, labelled: set[str]) -> None:
    for picture in pictures_in(root):
        if shown_name(picture.name) not in labelled:
            raise UserError(
                f"{path} has no label for image {shown_name(picture.name)} in {root}; add its row"
            )


def photograph_split(name: str) -> str:
    """Split of a photograph, the SHA-1 of its file name modulo 5: 1, 2 train, 3 tune, 4 report, 0 none."""
    remainder = int(hashlib.sha1(Path(name).name.encode()).hexdigest(), 16) % 5
    return ("none", "train", "train", "tune", "report")[remainder]


def _text_labels(root: Path, path: Path) -> tuple[list[str], list[int]]:
    """Labels from names and classes (as the authors' `val ground truth.txt`), or from ids alone."""
    try:
        lines = [line.rsplit(None, 1) for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (ValueError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not lines:
        raise UserError(f"{path} is empty; wanted a name and a class, or a class number, on each line")
    if len(lines[0]) == 1:
        return _development_kit(root, path, [line[-1] for line in lines])
    alone = next((line[0] for line in lines if len(line) == 1), None)
    if alone is not None:
        raise UserError(f"{path}: wanted a name and a class on each line, got '{alone}'")
    _check_all_labelled(root, path, {name for name, _ in lines})
    return _of_files(root, path, [(name, label) for name, label in lines])


def _development_kit(root: Path, path: Path, numbers: list[str]) -> tuple[list[str], list[int]]:
    """Labels of a flat ImageNet validation folder from the development kit's ground truth and `meta.mat`.

    A folder with fewer images than labels has to name each as ImageNet does, ILSVRC2012_val_00000005.JPEG.
    """
    meta = path.parent / "meta.mat"
    if not meta.is_file():
        raise UserError(
            f"{meta} not found: it belongs beside {path.name} (ImageNet development kit, folder data/)"
        )
    try:
        ids = [int(number) for number in numbers]
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    wnids = _wnids(meta)
    names = [shown_name(picture.name) for picture in pictures_in(root)]
    if len(names) != len(ids):
        ids = [ids[place] for place in _places(root, path, names, len(ids))]
    unknown = next((number for number in ids if wnids.get(number) not in wnid_to_index()), None)
    if unknown is not None:
        raise UserError(f"{path}: class {unknown} is not one of ImageNet's 1,000 in {meta}")
    return names, [wnid_to_index()[wnids[number]] for number in ids]


def _places(root: Path, path: Path, names: list[str], n_labels: int) -> list[int]:
    """Line of each image in a list of labels without names, by the number in its name."""
    found = [re.fullmatch(r"ILSVRC2012_val_0*([1-9]\d*)\.\w+", name) for name in names]
    numbers = [int(match[1]) if match else 0 for match in found]
    for name, number in zip(names, numbers, strict=True):
        if not 1 <= number <= n_labels:
            raise UserError(
                f"{path} has {n_labels} labels, {root} has {len(names)} images, and the name of {name} does "
                "not tell which of them is its own (ILSVRC2012_val_00000001.JPEG has the first)"
            )
    return [number - 1 for number in numbers]


# SciPy's reader crashes on some damaged files; in a process of its own that costs that process alone.
_READ_SYNSETS = """
import json, sys
import numpy, scipy.io
synsets = numpy.atleast_1d(scipy.io.loadmat(sys.argv[1], squeeze_me=True)["synsets"])
print(json.dumps({int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}))
"""


def _wnids(meta: Path) -> dict[int, str]:
    """WordNet id of each class number, from the development kit's `meta.mat`.

    Raises:
        UserError: the file is damaged, or another one.
    """
    try:
        read = subprocess.run(
            [sys.executable, "-P", "-c", _READ_SYNSETS, str(meta)],
            capture_output=True, text=True, timeout=_SECONDS, check=True,
        )  # fmt: skip
        return {int(number): wnid for number, wnid in json.loads(read.stdout).items()}
    except subprocess.CalledProcessError as error:
        why = next(iter(error.stderr.strip().splitlines()[-1:]), f"exit code {error.returncode}")
    except (subprocess.TimeoutExpired, ValueError, OSError) as error:
        why = str(error)
    raise UserError(f"cannot read {meta}: {why:.200}; is it the development kit's, and whole?")
