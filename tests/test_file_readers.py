"""Every file reader against mutated valid files: it reads, or says in a line what is wrong; never more.

A file is made by the library's own writer (or in its true layout), then changed at random but in the same way
in every run. `LTX_FUZZ_EXAMPLES=N` tries N changes of each instead of the default.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from ltx.datasets.classes import names_of_classes
from ltx.datasets.coco import CocoSegmentation
from ltx.datasets.gtsegs import ImagenetSegmentation
from ltx.datasets.imagenet import open_folder
from ltx.datasets.manifest import from_manifest
from ltx.datasets.pictures import PictureFiles, read_image
from ltx.datasets.voc import VocSegmentation
from ltx.main.baselines.imported import read_map as read_imported
from ltx.main.runs.evaluation import read_part, write_part
from ltx.main.runs.mask_files import MaskUnit, read_map, read_unit, unit_path, write_unit
from ltx.main.runs.run_folder import write_manifest
from ltx.models.checkpoints import load_state, load_weights, save_safetensors
from ltx.tests.support.mutations import N_EXAMPLES, fuzz, fuzz_json
from ltx.tests.support.segmentation_sets import pictures, write_coco, write_gtsegs, write_voc

SIZE = (16, 16)


# Mask files and scores.


def mask_unit() -> MaskUnit:
    rng = np.random.default_rng(0)
    return MaskUnit(
        np.arange(3), np.array([1, 2, 3]),
        {"pltx": rng.random((3, 4, 4)), "last": rng.random((3, 4, 4))}, {"grad_cam": rng.random((3, *SIZE))},
        {"label": np.arange(3), "loss": rng.random((3, 5))}, {"method": "ltx", "run_hash": "ab" * 32},
    )  # fmt: skip


def use_unit(path: Path) -> None:
    unit = read_unit(path)
    for variant in unit.variants:
        unit.maps(variant, SIZE)


def test_mask_files(tmp_path):
    path = unit_path(tmp_path, range(3))
    write_unit(path, mask_unit())
    fuzz(path, lambda: use_unit(path))


def test_one_map_of_a_mask_file(tmp_path):
    path = unit_path(tmp_path, range(3))
    write_unit(path, mask_unit())
    fuzz(path, lambda: [read_map(tmp_path, 1, name, SIZE) for name in ("last", "grad_cam")])


def test_scores_of_a_mask_file(tmp_path):
    path = tmp_path / "parts" / "000000-000002.npz"
    write_part(path, {"index": np.arange(3), "values": np.zeros((2, 3, 4)), "metrics": np.array(["POS"])})
    fuzz(path, lambda: read_part(path))


# Weights.


def weights() -> dict[str, torch.Tensor]:
    return {"layer.weight": torch.arange(12.0).view(3, 4), "layer.bias": torch.ones(3, dtype=torch.float16)}


def test_safetensors(tmp_path):
    path = tmp_path / "w.safetensors"
    save_safetensors(path, weights(), {"explainer": "tiny", "objective": {"mask_loss_mul": 50}})
    fuzz(path, lambda: load_weights(path))


@pytest.mark.parametrize("as_archive", [True, False])
def test_pytorch_files(tmp_path, as_archive):
    path = tmp_path / "w.pth"
    state = {"state_dict": weights(), "epoch": 3, "callbacks": {"a": [1, 2]}}
    torch.save(state, path, _use_new_zipfile_serialization=as_archive)
    fuzz(path, lambda: load_weights(path))
    torch.save(state, path, _use_new_zipfile_serialization=as_archive)
    fuzz(path, lambda: load_state(path))


# Lists of images.


def test_labels_csv(write_images):
    folder = write_images(["a.png", "b.png", "c.png"])
    path = folder / "labels.csv"
    path.write_text('img_name,label,split\na.png,1,train\n"b.png",2,tune\nc.png,3,tune\n')
    fuzz(path, lambda: open_folder(folder, SIZE))
    path.write_text('img_name,label,split\na.png,1,train\n"b.png",2,tune\nc.png,3,tune\n')
    fuzz(path, lambda: open_folder(folder, SIZE, path, "tune"))


def test_manifests(tmp_path, write_images):
    folder = write_images(["a.png", "b.png", "c.png"])
    images, path = open_folder(folder, SIZE), tmp_path / "manifest.csv"
    write_manifest(path, images, [2, 0])
    fuzz(path, lambda: from_manifest(path, images))


@pytest.mark.parametrize("which", ["meta.mat", "ILSVRC2012_validation_ground_truth.txt"])
def test_the_development_kit(tmp_path, write_images, which):
    folder = write_images(["a.png", "b.png"])
    synsets = np.array(
        [(1, "n01440764", "tench"), (2, "n01443537", "goldfish")],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")],
    )
    savemat(tmp_path / "meta.mat", {"synsets": synsets})
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n1\n")
    examples = max(4, N_EXAMPLES // 15)  # each starts a process
    fuzz(tmp_path / which, lambda: open_folder(folder, SIZE, truth), examples)


def test_class_names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("cat, tabby\ndog\nbird\n")
    fuzz(path, lambda: names_of_classes("tiny", 3, path))


# Pictures and maps.


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".bmp", ".tif", ".ppm"])
def test_pictures(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((24, 20)).save(path)
    shown = PictureFiles.of([path], SIZE)

    def read():
        read_image(path)
        shown.check()
        shown[0]

    fuzz(path, read)


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_imported_maps(tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    values = np.random.default_rng(0).random((16, 16))
    if suffix == ".npy":
        np.save(path, values.astype(np.float32))
    else:
        Image.fromarray((255 * values).astype(np.uint8)).save(path)
    fuzz(path, lambda: read_imported(path))


# Sets with object masks.


def use_all(make) -> None:
    images = make()
    for index in range(len(images)):
        images[index]


def test_gtsegs(tmp_path):
    path = write_gtsegs(tmp_path / "gtsegs_ijcv.mat", *pictures([(20, 30), (24, 16)]))
    fuzz(path, lambda: use_all(lambda: ImagenetSegmentation(tmp_path, SIZE)))


@pytest.mark.parametrize("how", [fuzz, fuzz_json])
def test_coco(tmp_path, how):
    path, _ = write_coco(tmp_path)
    how(path, lambda: use_all(lambda: CocoSegmentation(tmp_path, SIZE)))


@pytest.mark.parametrize("name", ["ImageSets/Segmentation/val.txt", "SegmentationClass/2007_000033.png",
                                  "JPEGImages/2007_000033.jpg"])  # fmt: skip
def test_voc(tmp_path, name):
    tree, _ = write_voc(tmp_path)
    fuzz(tree / name, lambda: use_all(lambda: VocSegmentation(tmp_path, SIZE)))
