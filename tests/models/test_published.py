"""Published checkpoints against independent models: a ViT written here, torchvision's CNNs."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from ltx import config
from ltx.config import ALIASES, UserError
from ltx.models import published
from ltx.models.checkpoints import load_weights
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import find_explainer, load_explainer
from ltx.tests.support.published_files import (
    CLASSES,
    DEPTH,
    DIM,
    HEADS,
    PATCH,
    SIDE,
    TINY,
    hugging_face_weights,
    save,
    vit_file,
)


@pytest.fixture(autouse=True)
def tiny_aliases(monkeypatch, tmp_path):
    for name, alias in TINY.items():
        monkeypatch.setitem(ALIASES, name, alias)
    monkeypatch.setattr(config, "CHECKPOINTS", tmp_path / "checkpoints")


def hugging_face_tokens(
    weights: dict[str, torch.Tensor], x: torch.Tensor, eps: float = 1e-12
) -> torch.Tensor:
    """Tokens after the final norm, (B, 1 + n, DIM), of the ViT of Dosovitskiy et al. 2021."""

    def linear(name, value):
        return F.linear(value, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name, value):
        return F.layer_norm(value, (DIM,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    patches = "vit.embeddings.patch_embeddings.projection"
    x = F.conv2d(x, weights[f"{patches}.weight"], weights[f"{patches}.bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([weights["vit.embeddings.cls_token"].expand(len(x), -1, -1), x], 1)
    x = x + weights["vit.embeddings.position_embeddings"]
    for i in range(DEPTH):
        layer = f"vit.encoder.layer.{i}"
        y = norm(f"{layer}.layernorm_before", x)
        q, k, v = (
            linear(f"{layer}.attention.attention.{part}", y).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        attention = (q @ k.transpose(2, 3) / math.sqrt(DIM // HEADS)).softmax(-1)
        x = x + linear(f"{layer}.attention.output.dense", (attention @ v).transpose(1, 2).flatten(2))
        y = norm(f"{layer}.layernorm_after", x)
        x = x + linear(f"{layer}.output.dense", F.gelu(linear(f"{layer}.intermediate.dense", y)))
    return norm("vit.layernorm", x)


class PublishedCnn(nn.Module):
    """The published CNN explainer: children of torchvision's network, a 1x1 convolution, a sigmoid."""

    def __init__(self, encoder: nn.Sequential, channels: int):
        super().__init__()
        self.encoder = encoder
        self.bottleneck = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x):
        return self.bottleneck(self.encoder(x))


class LightningModule(nn.Module):
    def __init__(self, explainee: nn.Module, explainer: nn.Module):
        super().__init__()
        self.vit_for_classification_image = explainee
        self.vit_for_patch_classification = explainer


def torchvision_pair(name: str) -> tuple[nn.Module, PublishedCnn]:
    def network():
        if name == "tiny_resnet":
            return torchvision.models.resnet18(num_classes=CLASSES)
        return torchvision.models.DenseNet(8, (1, 2, 1, 2), 16, num_classes=CLASSES)

    explainee, backbone = network(), network()
    encoder = [backbone.features] if name == "tiny_densenet" else list(backbone.children())[:-2]
    encoder = nn.Sequential(*encoder)
    with torch.no_grad():
        channels = encoder.eval()(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
    explainer = PublishedCnn(encoder, channels)
    for module in [*explainee.modules(), *explainer.modules()]:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return explainee.eval(), explainer.eval()


def images() -> torch.Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def test_vit_pair_gives_the_outputs_of_the_published_network(tmp_path):
    path, explainee_weights, explainer_weights = vit_file(tmp_path / "pair.ckpt")
    explainee, explainer = Explainee.from_name("tiny_vit", path), Explainer.untrained("tiny_vit")
    assert load_explainer(path, explainer)["published"] is True
    normalised = (images() - 0.5) / 0.5
    tokens = hugging_face_tokens(explainee_weights, normalised)
    logits = F.linear(
        tokens[:, 0], explainee_weights["classifier.weight"], explainee_weights["classifier.bias"]
    )
    assert logits.std() > 0.1
    torch.testing.assert_close(explainee(images()), logits, atol=1e-4, rtol=0)
    tokens = hugging_face_tokens(explainer_weights, normalised)[:, 1:]
    pooled = F.linear(
        tokens, explainer_weights["patch_pooler.weight"], explainer_weights["patch_pooler.bias"]
    )
    scores = F.linear(
        pooled.tanh(),
        explainer_weights["patch_classifier.weight"],
        explainer_weights["patch_classifier.bias"],
    )
    masks = scores.sigmoid().view(3, 1, SIDE // PATCH, SIDE // PATCH)
    assert masks.std() > 0.02
    torch.testing.assert_close(explainer(images()), masks, atol=1e-4, rtol=0)


def test_eps_of_layer_norm_is_the_published_one(tmp_path):
    path, weights, _ = vit_file(tmp_path / "pair.ckpt")
    normalised = (images() - 0.5) / 0.5
    published_tokens, timm_tokens = (hugging_face_tokens(weights, normalised, eps) for eps in (1e-12, 1e-6))
    assert (published_tokens - timm_tokens).abs().max() > 0.01, "the test's weights do not show the eps"
    norms = [m for m in Explainee.from_name("tiny_vit", path).modules() if isinstance(m, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-12}


def test_pooler_that_transformers_names_dense_is_read_too():
    tensors = {"patch_pooler.dense.weight": torch.ones(2, 2), "vit.pooler.dense.bias": torch.ones(2)}
    assert list(published.rename_explainer(tensors)) == ["head.0.weight"]


@pytest.mark.parametrize("name", ["tiny_resnet", "tiny_densenet"])
def test_cnn_pairs_give_torchvisions_outputs(name, tmp_path):
    torch.manual_seed(3)
    theirs_explainee, theirs_explainer = torchvision_pair(name)
    path = save(tmp_path / "pair.ckpt", LightningModule(theirs_explainee, theirs_explainer).state_dict())
    explainee, explainer = Explainee.from_name(name, path), Explainer.untrained(name)
    load_explainer(path, explainer)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    normalised = (images() - mean) / std
    with torch.no_grad():
        assert theirs_explainer(normalised).std() > 1e-3
        torch.testing.assert_close(explainee(images()), theirs_explainee(normalised), atol=1e-4, rtol=0)
        torch.testing.assert_close(explainer(images()), theirs_explainer(normalised), atol=1e-4, rtol=0)


def test_densenet_explainer_takes_features_before_the_last_relu():
    explainer = Explainer.untrained("tiny_densenet")
    assert explainer._features(torch.randn(1, 3, SIDE, SIDE), None)[0].min() < 0


def test_optimizer_state_goes_on_as_theirs_would(tmp_path):
    """One more AdamW step from the published state, in their names and in ours, gives the same weights."""
    generator = torch.Generator().manual_seed(4)
    theirs = {key: nn.Parameter(value) for key, value in hugging_face_weights(generator, False).items()}
    optimizer = torch.optim.AdamW(theirs.values(), lr=1e-3, weight_decay=0.01)

    def step(weights, optimiser):
        for i, value in enumerate(weights):
            value.grad = torch.full_like(value, 0.1 * (i + 1))
        optimiser.step()

    step(theirs.values(), optimizer)
    explainee = hugging_face_weights(generator, True)
    state = {f"vit_for_classification_image.{key}": value for key, value in explainee.items()}
    state |= {f"vit_for_patch_classification.{key}": value.detach().clone() for key, value in theirs.items()}
    path = save(tmp_path / "pair.ckpt", state, optimizer_states=[optimizer.state_dict()], lr_schedulers=[])
    explainer = Explainer.untrained("tiny_vit")
    load_explainer(path, explainer)
    trainable = explainer.trainable()
    stored = published.training_state(path, list(trainable))
    assert stored["global_step"] == 969
    assert stored["optimizer"]["param_groups"][0]["lr"] == 1e-3
    ours = torch.optim.AdamW(trainable.values(), lr=1e-3, weight_decay=0.01)
    for i, value in enumerate(trainable.values()):
        ours.state[value] = {
            key: torch.tensor(entry) if key == "step" else entry
            for key, entry in stored["optimizer"]["state"][i].items()
        }
    step(theirs.values(), optimizer)
    gradients = published.rename_explainer({key: value.grad for key, value in theirs.items()})
    for key, value in trainable.items():
        value.grad = gradients[key]
    ours.step()
    wanted = published.rename_explainer({key: value.detach() for key, value in theirs.items()})
    for key, value in trainable.items():
        torch.testing.assert_close(value.detach(), wanted[key])


def test_optimizer_state_that_is_missing_is_one_line(tmp_path):
    path, *_ = vit_file(tmp_path / "pair.ckpt")
    with pytest.raises(UserError, match="holds no state of an optimiser"):
        published.training_state(path, ["head.0.weight"])


def test_search_order_is_given_then_ours_then_published():
    folder = config.CHECKPOINTS / "tiny_vit"
    with pytest.raises(
        UserError, match=r"put the authors' \*_target_best_auc__epoch=\*.ckpt into .*tiny_vit"
    ):
        find_explainer("tiny_vit", "tiny_vit", True, None)
    theirs, *_ = vit_file(folder / "vit_target_best_auc__epoch=30_val_epoch_auc=20.ckpt")
    vit_file(folder / "vit_predicted_best_auc__epoch=12_val_epoch_auc=21.ckpt")
    assert find_explainer("tiny_vit", "tiny_vit", True, None) == theirs
    ours = folder / "target" / "best.safetensors"
    ours.parent.mkdir()
    ours.touch()
    assert find_explainer("tiny_vit", "tiny_vit", True, None) == ours
    assert find_explainer("tiny_vit", "tiny_vit", True, theirs) == theirs
    assert find_explainer("tiny_vit", "tiny_vit", True, folder) == theirs
    vit_file(folder / "vit_target_best_auc__epoch=31_val_epoch_auc=20.ckpt")
    with pytest.raises(UserError, match="several published files"):
        find_explainer("tiny_vit", "tiny_vit", True, folder)


def test_explainee_comes_from_a_published_file_in_its_folder():
    path, weights, _ = vit_file(config.CHECKPOINTS / "tiny_vit" / "any name, target.ckpt")
    explainee = Explainee.from_name("tiny_vit")
    torch.testing.assert_close(explainee.model.head.weight, weights["classifier.weight"], rtol=0, atol=0)
    assert explainee.num_classes == CLASSES
    assert find_explainer("tiny_vit", "tiny_vit", True, None) == path


def test_another_architecture_is_named_by_its_first_mismatch(tmp_path):
    path, *_ = vit_file(tmp_path / "pair.ckpt")
    with pytest.raises(
        UserError, match=r"does not fit explainer 'tiny_resnet': 'backbone\.conv1\.weight' is missing"
    ):
        load_explainer(path, Explainer.untrained("tiny_resnet"))
    with pytest.raises(UserError, match=r"does not fit 'tiny_resnet': it has no 'conv1\.weight'"):
        Explainee.from_name("tiny_resnet", path)


def test_files_of_anything_else_are_not_published_ones(tmp_path):
    torch.save({"state_dict": {"conv.weight": torch.ones(1)}}, tmp_path / "other.ckpt")
    assert published.split(load_weights(tmp_path / "other.ckpt")) is None
    assert not published.holds_pair(tmp_path / "other.ckpt")
