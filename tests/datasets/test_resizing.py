"""`--resize` against the transforms of timm and torchvision: the same pixels, and so the same top class.

`LTX_PHOTOGRAPHS=FOLDER` adds the photographs of a folder.
"""

import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import create_transform
from torchvision.transforms import v2

from ltx.config import CropSize
from ltx.datasets.base import to_tensor
from ltx.datasets.pictures import PictureFiles
from ltx.models.explainee import Explainee

SIZE = (224, 224)
FOLDER = os.environ.get("LTX_PHOTOGRAPHS")


def by_timm(picture: Image.Image, crop_pct: float, interpolation: str) -> torch.Tensor:
    """Pixels in [0, 1] as timm's evaluation sees them."""
    transform = create_transform(
        (3, *SIZE), crop_pct=crop_pct, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1)
    )
    return transform(picture)


def by_torchvision(picture: Image.Image, crop: bool) -> torch.Tensor:
    """Pixels in [0, 1] as torchvision's classification presets see them, or resized directly."""
    resize = (
        [v2.Resize(256, antialias=True), v2.CenterCrop(224)] if crop else [v2.Resize(SIZE, antialias=True)]
    )
    return v2.Compose([*resize, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])(picture)


def pairs(picture: Image.Image) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Our pixels beside theirs, by every way of resizing."""
    crop = CropSize(SIZE, 0.875, "bilinear")
    found = [
        (to_tensor(picture, CropSize(SIZE, pct, mode)), by_timm(picture, pct, mode))
        for pct, mode in ((0.875, "bicubic"), (0.9, "bicubic"), (0.95, "bilinear"), (1.0, "bicubic"))
    ]
    found.append((to_tensor(picture, crop), by_torchvision(picture, True)))
    return [*found, (to_tensor(picture, SIZE), by_torchvision(picture, False))]


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (97, 641), (224, 224), (60, 50)])
def test_pixels_are_those_of_timm_and_torchvision(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for ours, theirs in pairs(Image.fromarray(noise)):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, atol=0.5 / 255, rtol=0)


def photographs() -> list[Image.Image]:
    """Those that come with matplotlib and scikit-learn."""
    shipped = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [
        Image.open(shipped),
        *(Image.fromarray(load_sample_image(f"{n}.jpg")) for n in ("flower", "china")),
    ]


@torch.no_grad()
def assert_same_classes(pictures) -> None:
    explainee = Explainee.from_name("efficientnet_lite0")
    for name, picture in pictures:
        ours, theirs = (torch.stack(images) for images in zip(*pairs(picture.convert("RGB")), strict=True))
        assert explainee(ours).argmax(1).tolist() == explainee(theirs).argmax(1).tolist(), name


def test_top_classes_of_shipped_photographs():
    assert_same_classes(enumerate(photographs()))


@pytest.mark.skipif(FOLDER is None, reason="LTX_PHOTOGRAPHS names no folder of photographs")
def test_top_classes_of_a_folder_of_photographs():
    pictures = PictureFiles.of((Path(FOLDER),), SIZE, True)
    assert len(pictures)
    assert_same_classes((name, pictures.picture(index)) for index, name in enumerate(pictures.names))


def test_the_share_and_interpolation_of_a_crop_are_timms_own():
    from ltx.models.specs import crop_of

    model = timm.create_model(
        "test_vit", pretrained_cfg_overlay={"crop_pct": 0.95, "interpolation": "bilinear"}
    )
    assert crop_of(model) == (0.95, "bilinear")
    assert crop_of(torch.nn.Identity()) == (0.875, "bicubic")
