"""`explain.py` on models of the user's: folders of timm and transformers, files of weights, flags."""

import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from ltx.config import CropSize
from ltx.datasets.base import to_tensor
from ltx.main import explain
from ltx.main.runs.mask_files import read_unit, unit_files

NAME, MEAN, STD = "test_resnet", (0.1, 0.2, 0.3), (0.5, 0.4, 0.3)


@pytest.fixture
def photo(write_images) -> Path:
    return write_images(["photo.png"], size=(70, 90)) / "photo.png"


@pytest.fixture
def run(run_script, places, photo):
    """Runs the script on the photograph; returns what it printed and the probability of the top class."""

    def go(*argv):
        result = run_script(explain, "--input", photo, "--steps", 2, "--device", "cpu", *argv)
        assert result.code == 0, result.err
        unit = read_unit(unit_files(Path(result.closing["run"]))[0])
        return result.out, float(unit.arrays["top_probability"][0, 0])

    return go


def tiny(n: int) -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=n)
    torch.nn.init.normal_(model.get_classifier().weight, std=0.3)
    return model.eval()


@torch.no_grad()
def logits_of(model, photo: Path, size=(96, 96), mean=MEAN, std=STD) -> torch.Tensor:
    pixels = to_tensor(Image.open(photo), size)[None]
    return model((pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))[0]


def test_a_folder_of_timm_brings_its_own_input_and_names(run, photo, tmp_path):
    model = tiny(3)
    model.pretrained_cfg.update(mean=MEAN, std=STD, input_size=(3, 96, 96), num_classes=3)
    save_for_hf(
        model, tmp_path / "hub", model_config={"label_names": ["cat", "dog", "fish"], "num_classes": 3}
    )
    wanted = logits_of(model, photo).softmax(0)
    out, found = run("--explainee-model-name", f"local-dir:{tmp_path / 'hub'}")
    assert found == pytest.approx(float(wanted.max()), abs=1e-4)
    assert f"{('cat', 'dog', 'fish')[wanted.argmax()]} {wanted.max():.1%}" in out
    assert "pLTX weights: none found, so the mask itself is trained" in out
    out, found = run("--explainee-model-name", f"local-dir:{tmp_path / 'hub'}", "--target-class", "dog")
    assert "dog (1), last: keeps" in out


@pytest.fixture
def weights(tmp_path):
    """`weights(n)`: a model of n outputs, and the flags that name its file and input."""

    def write(n: int, *more):
        model = tiny(n)
        torch.save(model.state_dict(), tmp_path / "own.pth")
        given = ("--mean", *MEAN, "--std", *STD, "--input-size", 96)
        return model, (
            "--explainee-model-name", NAME, "--explainee-checkpoint", tmp_path / "own.pth", *given, *more,
        )  # fmt: skip

    return write


def test_flags_say_what_a_file_of_weights_does_not(run, weights, photo):
    model, flags = weights(3)
    wanted = logits_of(model, photo).softmax(0).max()
    assert run(*flags)[1] == pytest.approx(float(wanted), abs=1e-4)
    cropped = logits_of(model, photo, CropSize((96, 96), 0.95, "bicubic")).softmax(0).max()
    found = run(*flags, "--resize", "centre-crop", "--run-name", "cropped")[1]
    assert found == pytest.approx(float(cropped), abs=1e-4) and found != pytest.approx(
        float(wanted), abs=1e-4
    )


def test_independent_classes(run, weights, photo):
    model, flags = weights(3, "--multi-label", "True")
    assert run(*flags)[1] == pytest.approx(float(logits_of(model, photo).sigmoid().max()), abs=1e-4)


def test_one_output_is_a_question(run, weights, photo):
    model, flags = weights(1)
    yes = float(logits_of(model, photo).sigmoid())
    for answer, probability in (("yes", yes), ("no", 1 - yes)):
        out, _ = run(*flags, "--target-class", answer)
        assert (
            f"{answer} ({int(answer == 'yes')}), last: keeps" in out
            and f"probability {probability:.1%}," in out
        )


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_transformers(run, photo, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    cfg = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32,
        patch_size=8, id2label={0: "cat", 1: "dog", 2: "fish"}, label2id={"cat": 0, "dog": 1, "fish": 2},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(cfg).eval()
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path / "vit")
    processor = {"image_mean": MEAN, "image_std": STD, "size": {"height": 32, "width": 32}}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    wanted = logits_of(lambda x: model(x).logits, photo, (32, 32)).softmax(0)
    out, found = run("--explainee-model-name", f"hf:{tmp_path / 'vit'}")
    assert found == pytest.approx(float(wanted.max()), abs=1e-4)
    assert f"{('cat', 'dog', 'fish')[wanted.argmax()]} {wanted.max():.1%}" in out
