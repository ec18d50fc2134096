"""Image classifiers of transformers, from folders that `save_pretrained` wrote."""

import json

import pytest
import torch

from ltx.config import UserError
from ltx.main.api import Explainer, explain
from ltx.models.explainee import Explainee
from ltx.models.registry import input_size

NAMES = {0: "cat", 1: "dog", 2: "fish"}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def make(kind: str):
    """A tiny classifier of a kind, random weights."""
    transformers = pytest.importorskip("transformers")
    labels = {"id2label": NAMES, "label2id": {name: index for index, name in NAMES.items()}}
    width = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    square = {"image_size": 32, "patch_size": 8}
    stages = {"depths": [1, 1], "embed_dim": 8, "num_heads": [1, 2], "window_size": 4}
    settings = {
        "ViT": width | square,
        "DeiT": width | square,
        "Dinov2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2} | square,
        "Swin": {"image_size": 32, "patch_size": 4} | stages,
        "ConvNext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32},
    }
    torch.manual_seed(0)
    if kind == "Siglip":
        cfg = transformers.SiglipConfig(vision_config=width | square, **labels)
    else:
        cfg = getattr(transformers, f"{kind}Config")(**settings[kind], **labels)
    model = getattr(transformers, f"{kind}ForImageClassification")(cfg).eval()
    for name, value in model.named_parameters():
        if value.dim() > 1 and "classifier" in name:
            torch.nn.init.normal_(value)
    return model


KINDS = ["ViT", "DeiT", "Dinov2", "Swin", "ConvNext", "Siglip"]


@pytest.fixture
def save(tmp_path):
    """`save(kind)`: the model and its folder, with an image processor's configuration."""

    def write(kind):
        model = make(kind)
        model.save_pretrained(tmp_path / kind)
        processor = {
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.5] * 3,
            "size": {"height": 32, "width": 32},
        }
        (tmp_path / kind / "preprocessor_config.json").write_text(json.dumps(processor))
        return model, tmp_path / kind

    return write


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_an_explainee_and_an_explainer(kind, save):
    model, folder = save(kind)
    found = Explainee.from_name(f"hf:{folder}")
    normalised = (IMAGES - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.5
    torch.testing.assert_close(found(IMAGES), model(normalised).logits, rtol=1e-4, atol=1e-5)
    assert (found.input_size, found.labels, found.num_classes) == ((32, 32), ("cat", "dog", "fish"), 3)
    assert input_size(f"hf:{folder}") == (32, 32)
    explainer = Explainer.from_name(f"hf:{folder}", found)
    assert min(explainer.grid) >= 4
    if kind in ("ViT", "DeiT", "Dinov2", "Siglip"):
        assert explainer.grid == (4, 4)
        assert not any("embeddings" in name for name in explainer.trainable())
    made = explain(explainer, found, IMAGES, target=1, steps=3, lr=1e-2)
    assert made.saliency.isfinite().all() and made.token_masks.std() > 0
    first, last = made.variants["pltx"], made.variants["last"]
    assert (first - last).abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore")
def test_a_model_in_memory_is_an_explainee_too(save):
    model, _ = save("ViT")
    found = Explainee.from_module(model, 0.5, 0.5, (32, 32))
    torch.testing.assert_close(found(IMAGES), model((IMAGES - 0.5) / 0.5).logits, rtol=1e-4, atol=1e-5)


def test_grids_follow_the_place_of_the_tokens(save):
    """Tokens are in the order of the image: a bright corner lies where its token is."""
    _, folder = save("ViT")
    backbone = Explainee.from_name(f"hf:{folder}").model
    dark = torch.zeros(1, 3, 32, 32)
    bright = dark.clone()
    bright[..., :8, 24:] = 5
    patches = backbone.model.vit.embeddings.patch_embeddings
    change = (patches(bright) - patches(dark)).abs().sum(-1)
    assert change.argmax() == 3 and backbone.forward_features(dark).shape == (1, 16, 16)


def test_folders_without_a_trained_classifier(save, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, folder = save("ViT")
    transformers.ViTModel(model.config).save_pretrained(folder)
    with pytest.raises(UserError, match="has no trained classifier: its weights lack classifier"):
        Explainee.from_name(f"hf:{folder}")
    with pytest.raises(UserError, match="gives no image classifier"):
        Explainee.from_name(f"hf:{tmp_path}")
    with pytest.raises(UserError, match="pass a folder, or add --download True"):
        Explainee.from_name("hf:nobody/nothing")
    with pytest.raises(UserError, match=f"pass the folder, hf:{folder}"):
        Explainee.from_name("hf:x", folder / "model.safetensors")


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install transformers"):
        Explainee.from_name("hf:x")
