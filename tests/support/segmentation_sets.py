"""Small segmentation sets in their true layouts, for tests."""

import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

MATLAB_HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024"


def pictures(sizes: list[tuple[int, int]], seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random images (H, W, 3) uint8 and object masks (H, W) with a rectangle of ones."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]
    masks = []
    for h, w in sizes:
        mask = np.zeros((h, w), dtype=np.uint8)
        mask[h // 4 : h // 2, w // 3 :] = 1
        masks.append(mask)
    return images, masks


def write_gtsegs(path: Path, images: list[np.ndarray], masks: list[np.ndarray]) -> Path:
    """A v7.3 file like gtsegs_ijcv.mat: references to (3, W, H) images and to cells of (W, H) labels."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs, value = file.create_group("#refs#"), file.create_group("value")
        entries = {"img": [], "gt": []}
        for i, image in enumerate(images):
            refs[f"i{i}"] = image.transpose(2, 1, 0)
            entries["img"].append(refs[f"i{i}"].ref)
        for i, mask in enumerate(masks):
            refs[f"m{i}"] = mask.T
            cell = refs.create_dataset(f"c{i}", (1, 1), dtype=h5py.ref_dtype)
            cell[0, 0] = refs[f"m{i}"].ref
            entries["gt"].append(cell.ref)
        for key, references in entries.items():
            column = value.create_dataset(key, (len(references), 1), dtype=h5py.ref_dtype)
            for i, reference in enumerate(references):
                column[i, 0] = reference
    with open(path, "r+b") as file:
        file.write(MATLAB_HEADER.ljust(124) + b"\x00\x02IM")
    return path


def write_coco(root: Path, nested: bool = False) -> tuple[Path, dict[str, np.ndarray]]:
    """COCO's val2017 in small: an image with a polygon and a crowd, one with a polygon, one without any.

    Returns:
        Path of the JSON and the true mask (H, W) of each annotated image.
    """
    base = root / "coco"
    folder = base / "images" / "val2017" if nested else base / "val2017"
    folder.mkdir(parents=True)
    (base / "annotations").mkdir()
    sizes = {"000000000009.jpg": (30, 40), "000000000025.jpg": (20, 24), "000000000030.jpg": (16, 16)}
    records = []
    for number, (name, (h, w)) in enumerate(sizes.items()):
        Image.new("RGB", (w, h), (200, 100, 10 * number)).save(folder / name)
        records.append({"id": 9 + number, "file_name": name, "height": h, "width": w})
    crowd = np.zeros((30, 40), dtype=np.uint8)
    crowd[20:25, 30:38] = 1
    annotations = [
        _polygon(1, 9, x=5, y=4, w=10, h=6),
        {
            **_polygon(2, 9, x=30, y=20, w=8, h=5),
            "iscrowd": 1,
            "segmentation": {"counts": run_lengths(crowd), "size": [30, 40]},
        },
        _polygon(3, 10, x=0, y=10, w=24, h=10),
    ]
    path = base / "annotations" / "instances_val2017.json"
    path.write_text(
        json.dumps(
            {"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        )
    )
    first, second = crowd.copy(), np.zeros((20, 24), dtype=np.uint8)
    first[4:10, 5:15] = 1
    second[10:, :] = 1
    return path, {"000000000009.jpg": first, "000000000025.jpg": second}


def _polygon(number: int, image: int, x: int, y: int, w: int, h: int) -> dict:
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    polygon = [float(value) for value in corners]
    record = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": w * h}
    return record | {"bbox": [x, y, w, h], "segmentation": [polygon]}


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: lengths of runs down the columns, starting with zeros."""
    counts, value, run = [], 0, 0
    for pixel in mask.flatten(order="F").tolist():
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return [*counts, run]


def write_voc(root: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """VOC2012's tree in small: two images of `val` and one of `train`, palette masks with a void rim.

    Returns:
        Folder VOC2012 and the palette indices (H, W) of each image.
    """
    tree = root / "voc" / "VOCdevkit" / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (tree / folder).mkdir(parents=True)
    palettes = {}
    for number, name in enumerate(("2007_000033", "2007_000042", "2007_000032")):
        labels = np.zeros((24 + number, 30), dtype=np.uint8)
        labels[5:15, 5:20] = 255
        labels[6:14, 6:19] = 1 + 4 * number
        palettes[name] = labels
        Image.new("RGB", (30, 24 + number), (10, 200, 90)).save(tree / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(labels)
        mask.putpalette(
            [value % 256 for index in range(256) for value in (index * 67, index * 31, index * 7)]
        )
        mask.save(tree / "SegmentationClass" / f"{name}.png")
    listed = tree / "ImageSets" / "Segmentation"
    (listed / "val.txt").write_text("2007_000033\n2007_000042\n")
    (listed / "train.txt").write_text("2007_000032\n")
    return tree, palettes
