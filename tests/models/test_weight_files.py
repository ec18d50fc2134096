"""Files of a fine-tuned model's weights, as training scripts leave them."""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf

from ltx import config
from ltx.config import CENTRE_CROP, UserError
from ltx.datasets.base import mask_to_tensor, to_tensor
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.registry import input_size
from ltx.models.timm_folder import weights_in

NAME = "test_resnet"
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=5).eval()
    torch.nn.init.normal_(model.get_classifier().weight)
    return model


@pytest.fixture(scope="module")
def wanted(model):
    cfg = resolve_model_data_config(model)
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return model((IMAGES - mean) / std)


def prefixed(weights: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in weights.items()}


ZEROS = "zeros"  # stands for weights of zeros, which must not be taken
CONTENT = {
    "plain": lambda w, z: w,
    "state_dict": lambda w, z: {"epoch": 3, "arch": "x", "state_dict": w, "optimizer": {"state": {}}},
    "ddp": lambda w, z: {"state_dict": prefixed(w, "module.")},
    "lightning": lambda w, z: {"state_dict": prefixed(w, "model."), "hyper_parameters": {"lr": 0.1}},
    "net": lambda w, z: {"state_dict": prefixed(w, "net.")},
    "backbone": lambda w, z: prefixed(w, "backbone."),
    "compiled": lambda w, z: prefixed(w, "_orig_mod."),
    "compiled ddp": lambda w, z: prefixed(w, "_orig_mod.module."),
    "nested": lambda w, z: {"model": {"state_dict": prefixed(w, "module.model._orig_mod.")}},
    "model_state_dict": lambda w, z: {"model_state_dict": w, "optimizer_state_dict": {}},
    "net key": lambda w, z: {"net": w},
    "weights key": lambda w, z: {"weights": w},
    "ema": lambda w, z: {"state_dict": z, "state_dict_ema": w},
    "model_ema": lambda w, z: {"model": z, "model_ema": w},
    "numpy scalar": lambda w, z: {"state_dict": w, "best": np.float64(0.9), "n": np.int64(3)},
    "arguments": lambda w, z: {"state_dict": w, "args": argparse.Namespace(lr=0.1)},
    "path": lambda w, z: {"state_dict": w, "where": Path("/x")},
    "half": lambda w, z: {k: v.half() if v.is_floating_point() else v for k, v in w.items()},
    "parameters": lambda w, z: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in w.items()
    },
    "counts": lambda w, z: w | {"total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)},
    "loss beside": lambda w, z: {"state_dict": prefixed(w, "model.") | {"criterion.weight": torch.ones(5)}},
}


@pytest.mark.parametrize("kind", CONTENT)
def test_files_of_training_scripts_hold_the_same_model(kind, model, wanted, tmp_path):
    weights = model.state_dict()
    torch.save(
        CONTENT[kind](weights, {k: torch.zeros_like(v) for k, v in weights.items()}), tmp_path / "w.pth"
    )
    found = Explainee.from_name(NAME, tmp_path / "w.pth")(IMAGES)
    tolerance = 5e-2 if kind == "half" else 1e-4
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt", "author": "someone"}, {"epoch": "3", "d": "2026-01"}]
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_safetensors_of_other_people(metadata, prefix, model, wanted, tmp_path):
    weights = {prefix + key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors", metadata=metadata)
    torch.testing.assert_close(
        Explainee.from_name(NAME, tmp_path / "w.safetensors")(IMAGES), wanted, rtol=1e-4, atol=1e-4
    )


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_model_is_a_file_of_weights(model, wanted, tmp_path):
    torch.jit.save(torch.jit.trace(model, IMAGES), tmp_path / "w.pt")
    torch.testing.assert_close(
        Explainee.from_name(NAME, tmp_path / "w.pt")(IMAGES), wanted, rtol=1e-4, atol=1e-4
    )


def test_of_several_state_dicts_the_one_taken_is_said(model, tmp_path, caplog):
    weights = model.state_dict()
    torch.save({"state_dict": weights, "state_dict_ema": weights}, tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING):
        Explainee.from_name(NAME, tmp_path / "w.pth")
    assert "holds 'state_dict_ema' and 'state_dict'; 'state_dict_ema' is taken" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda w: {f"x.{k}": v for k, v in w.items()}, r"it has no 'conv1.*and \d+ more, but 'x\.conv1"),
        (
            lambda w: {k: v for k, v in w.items() if not k.startswith("fc")},
            r"it has no 'fc\.weight', 'fc\.bias'",
        ),
        (lambda w: w | {"layer1.9.conv.weight": torch.zeros(1)}, r"holds 'layer1\.9\.conv\.weight', which"),
        (lambda w: w | {"fc.weight": torch.full_like(w["fc.weight"], torch.nan)}, r"'fc\.weight' has \d+ of"),
        (lambda w: {"epoch": 3, "loss": 0.1}, "is not a state dict.*'epoch', 'loss'"),
    ],
)
def test_what_does_not_fit_is_named(content, message, model, tmp_path):
    torch.save(content(model.state_dict()), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        Explainee.from_name(NAME, tmp_path / "w.pth")


def test_one_output_in_a_file_is_a_question(tmp_path, caplog):
    torch.save(timm.create_model(NAME, num_classes=1).state_dict(), tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING):
        found = Explainee.from_name(NAME, tmp_path / "w.pth")
    assert (found.num_classes, found.labels) == (2, ("no", "yes")) and "has one output" in caplog.text
    random = found.with_random_weights(3)
    assert random.num_classes == 2


def test_one_channel_in_a_file_sees_grey(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=3, in_chans=1).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    found = Explainee.from_name(NAME, tmp_path / "w.pth", mean=[0.5], std=[0.5])
    assert found.channels == 1
    grey = IMAGES[:, :1]
    torch.testing.assert_close(
        found(grey.expand(-1, 3, -1, -1)), model((grey - 0.5) / 0.5), rtol=1e-3, atol=1e-4
    )
    explainer = Explainer.for_explainee(NAME, found)
    torch.testing.assert_close(explainer(grey.expand(-1, 3, -1, -1)), explainer(grey), rtol=1e-3, atol=1e-5)


def test_sizes_of_transformers_can_be_given(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3, img_size=96).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"'pos_embed' has shape .*; pass its --input-size"):
        Explainee.from_name("test_vit", tmp_path / "w.pth")
    found = Explainee.from_name("test_vit", tmp_path / "w.pth", input_size=[96], mean=[0.5], std=[0.5])
    images = torch.rand(1, 3, 96, 96)
    assert found.input_size == (96, 96)
    torch.testing.assert_close(found(images), model((images - 0.5) / 0.5), rtol=1e-4, atol=1e-5)
    assert Explainer.for_explainee("test_vit", found).input_size == (96, 96)


# config.json beside the weights.


@pytest.fixture
def folder(tmp_path) -> Path:
    """A fine-tuned model as timm saves it, with its own mean, size and names."""
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=3)
    model.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.5,) * 3, input_size=(3, 96, 96), num_classes=3)
    save_for_hf(
        model, tmp_path / "hub", model_config={"label_names": ["cat", "dog", "fish"], "num_classes": 3}
    )
    return tmp_path / "hub"


@pytest.mark.parametrize("by_name", [True, False])
def test_config_beside_the_weights_is_honoured(by_name, folder):
    if by_name:
        name, checkpoint = f"local-dir:{folder}", None
    else:
        name, checkpoint = NAME, weights_in(folder)
    found = Explainee.from_name(name, checkpoint)
    assert found.spec.mean == pytest.approx((0.1, 0.2, 0.3)) and found.spec.std == (0.5,) * 3
    assert (found.input_size, found.labels, found.num_classes) == ((96, 96), ("cat", "dog", "fish"), 3)
    assert input_size(name, checkpoint) == (96, 96)
    given = Explainee.from_name(name, checkpoint, mean=[0.5], input_size=[64, 80])
    assert given.spec.mean == (0.5,) * 3 and given.input_size == (64, 80)


def test_an_explainer_of_such_a_folder(folder):
    name = f"local-dir:{folder}"
    explainee = Explainee.from_name(name)
    explainer = Explainer.for_explainee(name, explainee)
    assert explainer(torch.rand(1, 3, 96, 96)).shape[-2:] == explainer.grid
    assert Explainer.untrained(name).input_size == (96, 96)


def test_folders_that_hold_no_timm_model(folder, tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing or names no timm 'architecture'"):
        Explainee.from_name(f"local-dir:{tmp_path}")
    weights_in(folder).unlink()
    with pytest.raises(UserError, match="holds no weights; looked for model"):
        Explainee.from_name(f"local-dir:{folder}")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        Explainee.from_name(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": [1, 2]}, "--mean.*wanted 3 values"),
        ({"mean": [120.0]}, r"--mean.*for pixels in \[0, 1\]"),
        ({"std": [0.0]}, "--std"),
        ({"input_size": [0]}, "--input-size"),
        ({"input_size": [1, 2, 3]}, "--input-size 1 2 3"),
    ],
)
def test_flags_out_of_range(given, message, folder):
    with pytest.raises(UserError, match=message):
        Explainee.from_name(f"local-dir:{folder}", **given)


# Centre crops.


@pytest.mark.parametrize("shape", [(300, 200), (97, 301), (64, 64), (500, 333)])
@pytest.mark.parametrize(("crop_pct", "mode"), [(0.875, "bicubic"), (0.95, "bilinear"), (1.0, "bicubic")])
def test_a_centre_crop_is_timms(shape, crop_pct, mode):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    size = config.CropSize((64, 64), crop_pct, mode)
    transform = create_transform(
        (3, 64, 64), interpolation=mode, mean=(0, 0, 0), std=(1, 1, 1), crop_pct=crop_pct
    )
    torch.testing.assert_close(to_tensor(picture, size), transform(picture), rtol=0, atol=1e-6)
    mask = mask_to_tensor(np.ones(shape), size)
    assert mask.shape == (64, 64) and (mask == 1).all()


def test_the_flag_takes_the_models_own_crop():
    found = Explainee.from_name(NAME, resize=CENTRE_CROP, checkpoint=_weights())
    cfg = timm.create_model(NAME).pretrained_cfg
    assert isinstance(found.input_size, config.CropSize)
    assert (found.input_size.crop_pct, found.input_size.interpolation) == (
        cfg["crop_pct"],
        cfg["interpolation"],
    )


def _weights() -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp()) / "w.pth"
    torch.save(timm.create_model(NAME).state_dict(), path)
    return path


def test_crops_survive_what_worker_processes_do_to_them():
    import pickle

    size = pickle.loads(pickle.dumps(config.CropSize((64, 80), 0.9, "bilinear")))
    assert (tuple(size), size.crop_pct, size.interpolation) == ((64, 80), 0.9, "bilinear")
    assert json.dumps(size) == "[64, 80]"
