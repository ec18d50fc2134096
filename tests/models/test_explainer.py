"""Explainers of every architecture: token grids against patch geometry, masks by hand, freezing, files."""

import pytest
import timm
import torch

from ltx.config import ACTIVATIONS, UserError
from ltx.models.checkpoints import load_safetensors
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import find_explainer, load_explainer, read_explainer, save_explainer
from ltx.models.heads import activate
from ltx.models.masking import with_halo
from ltx.models.registry import InputSpec, create_model

HALF = (0.5, 0.5, 0.5)
SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2}

# name: (model, input size, grid: input size over stride)
BACKBONES = {
    "vit": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, **SMALL), (64, 64), (4, 4)),
    "vit_not_square": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=(32, 96), **SMALL), (32, 96), (2, 6)
    ),
    "vit_no_class_token": (
        lambda: timm.create_model("vit_base_patch16_gap_224", img_size=64, **SMALL), (64, 64), (4, 4)
    ),
    "deit_distilled": (
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=48, **SMALL), (48, 48), (3, 3)
    ),
    "registers": (
        lambda: timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, **SMALL), (56, 56), (4, 4)
    ),
    "registers_not_square": (
        lambda: timm.create_model("vit_small_patch14_reg4_dinov2", img_size=(28, 70), **SMALL),
        (28, 70), (2, 5)
    ),
    "swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=8, depths=(2, 2, 2, 2),
            num_heads=(2, 2, 2, 2),
        ), (64, 64), (2, 2)
    ),
    "swin_not_square": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=(64, 96), window_size=2, embed_dim=8,
            depths=(2, 2, 2, 2), num_heads=(2, 2, 2, 2),
        ), (64, 96), (2, 3)
    ),
    "convnext": (
        lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)), (96, 64), (3, 2)
    ),
    "resnet": (
        lambda: timm.create_model("resnet10t", stem_width=8, channels=(8, 8, 16, 16)), (96, 64), (3, 2)
    ),
    "densenet": (
        lambda: timm.create_model("densenet121", growth_rate=4, block_config=(2, 2, 2, 2)), (96, 64), (3, 2)
    ),
    "efficientnet": (lambda: timm.create_model("test_efficientnet"), (96, 64), (3, 2)),
}  # fmt: skip


def make(name):
    torch.manual_seed(0)
    build, size, grid = BACKBONES[name]
    return Explainer(build(), InputSpec(size, HALF, HALF), name), size, grid


@pytest.mark.parametrize("name", BACKBONES)
def test_token_grid(name):
    explainer, size, grid = make(name)
    masks = explainer(torch.rand(2, 3, *size))
    assert explainer.grid == grid and masks.shape == (2, 1, *grid)
    assert masks.min() >= 0 and masks.max() <= 1


@pytest.mark.parametrize("name", BACKBONES)
def test_every_trainable_weight_gets_a_gradient_and_no_frozen_one(name):
    explainer, size, _ = make(name)
    (explainer(torch.rand(2, 3, *size)) * torch.rand(2, 1, *explainer.grid)).sum().backward()
    for key, parameter in explainer.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


@pytest.mark.parametrize(
    "name", ["vit", "vit_not_square", "vit_no_class_token", "deit_distilled", "registers_not_square"]
)
def test_tokens_lie_where_their_patches_do(name):
    """With attention switched off each token sees its own patch alone: one bright patch moves one token."""
    explainer, (height, width), (rows, columns) = make(name)
    for block in explainer.backbone.blocks:  # without attention each token sees its own patch alone
        torch.nn.init.zeros_(block.attn.proj.weight)
    reference = explainer(torch.zeros(1, 3, height, width))
    for i, j in ((0, 0), (rows - 1, 0), (0, columns - 1), (1, columns - 1)):
        image = torch.zeros(1, 3, height, width)
        image[
            ...,
            i * height // rows : (i + 1) * height // rows,
            j * width // columns : (j + 1) * width // columns,
        ] = 1
        changed = (explainer(image) - reference)[0, 0].abs() > 1e-6
        assert changed.nonzero().tolist() == [[i, j]]


def test_published_grids():
    """14x14 for ViT-B/16 and 7x7 for ResNet-101 at 224, read off narrow models of the same strides."""
    vit = timm.create_model("vit_base_patch16_224", **SMALL)
    cnn = timm.create_model("resnet10t", stem_width=8, channels=(8, 8, 16, 16))
    spec = InputSpec((224, 224), HALF, HALF)
    assert Explainer(vit, spec, "vit").grid == (14, 14) and Explainer(cnn, spec, "cnn").grid == (7, 7)


def test_mask_of_a_vit_by_hand():
    """Tokens after the final norm without prefix tokens -> Linear, Tanh, Linear -> sigmoid, row by row."""
    explainer, size, (rows, columns) = make("registers_not_square")
    image, backbone = torch.rand(1, 3, *size), explainer.backbone
    tokens = backbone.forward_features((image - 0.5) / 0.5)[0, 5:]  # one class and four register tokens
    first, _, second = explainer.head
    assert first.weight.shape == (16, 16) and second.weight.shape == (1, 16)
    hidden = torch.tanh(tokens @ first.weight.T + first.bias)
    expected = 1 / (1 + torch.exp(-(hidden @ second.weight[0] + second.bias)))
    assert len(tokens) == rows * columns
    torch.testing.assert_close(explainer(image)[0, 0], expected.view(rows, columns))


def test_mask_of_a_cnn_by_hand():
    explainer, size, _ = make("resnet")
    image = torch.rand(1, 3, *size)
    features = explainer.backbone.forward_features((image - 0.5) / 0.5)[0]
    assert explainer.head.weight.shape == (1, features.shape[0], 1, 1)
    logits = torch.einsum("chw,c->hw", features, explainer.head.weight[0, :, 0, 0]) + explainer.head.bias
    torch.testing.assert_close(explainer(image)[0, 0], torch.sigmoid(logits))


def test_own_mean_and_std_are_used():
    build, size, _ = BACKBONES["vit"]
    torch.manual_seed(0)
    explainer = Explainer(build(), InputSpec(size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), "vit")
    other, image = make("vit")[0], torch.rand(1, 3, *size)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    torch.testing.assert_close(explainer(image), other((image - mean) / std * 0.5 + 0.5))


def test_images_of_another_size_are_resized_to_its_own():
    explainer, size, grid = make("vit_not_square")
    images = torch.rand(2, 3, 50, 40)
    resized = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
    torch.testing.assert_close(explainer(images), explainer(resized))
    assert explainer(images).shape == (2, 1, *grid)


@pytest.mark.parametrize("name", ["vit", "deit_distilled", "registers", "swin"])
def test_embeddings_and_prefix_tokens_are_frozen(name):
    explainer = make(name)[0]
    trainable = {key.removeprefix("backbone.") for key in explainer.trainable()}
    frozen = ("patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token")
    assert not any(key.startswith(frozen) for key in trainable)
    assert any(key.startswith(("blocks", "layers")) for key in trainable)
    assert {key for key in trainable if key.startswith("head")} == {
        "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias",
    }  # fmt: skip


def test_first_layers_freeze():
    build, size, _ = BACKBONES["vit"]
    explainer = Explainer(build(), InputSpec(size, HALF, HALF), "vit", n_first_layers_to_freeze=1)
    frozen = {
        key.split(".")[2]
        for key, p in explainer.named_parameters()
        if "blocks." in key and not p.requires_grad
    }
    assert frozen == {"0"}
    assert any(key.startswith("backbone.blocks.1.") for key in explainer.trainable())
    with pytest.raises(UserError, match="--explainer-model-n-first-layers-to-freeze 3: 'vit' has 2 layers"):
        Explainer(build(), InputSpec(size, HALF, HALF), "vit", n_first_layers_to_freeze=3)


@pytest.mark.parametrize("name", ["resnet", "convnext", "swin"])
def test_freezing_first_layers_has_no_effect_elsewhere(name, caplog):
    build, size, _ = BACKBONES[name]
    explainer = Explainer(build(), InputSpec(size, HALF, HALF), name, n_first_layers_to_freeze=1)
    assert set(explainer.trainable()) == set(make(name)[0].trainable())
    assert "no effect" in caplog.text


@pytest.mark.parametrize("name", ["resnet", "densenet", "efficientnet"])
def test_batch_norm_and_dropout_stay_fixed_in_training(name):
    explainer, size, _ = make(name)
    explainer.train()
    assert not any(module.training for module in explainer.modules())
    before = {key: value.clone() for key, value in explainer.named_buffers()}
    images = torch.rand(3, 3, *size)
    assert torch.equal(explainer(images), explainer(images))
    assert all(torch.equal(value, before[key]) for key, value in explainer.named_buffers())


def test_activations():
    logits = 3 * torch.randn(2, 1, 3, 4)
    softmax = torch.softmax(logits.flatten(1), 1).view_as(logits)
    expected = {
        "sigmoid": 1 / (1 + (-logits).exp()),
        "relu": logits.clamp(0, 1),
        "softmax": softmax / softmax.amax((1, 2, 3), keepdim=True),
        "relu_released": logits.clamp(min=0),
        "softmax_released": softmax,
    }
    assert set(expected) == set(ACTIVATIONS) and logits.max() > 1
    for activation, values in expected.items():
        torch.testing.assert_close(activate(logits, activation), values)


def test_explainers_apply_their_activation():
    build, size, _ = BACKBONES["vit"]
    image, made = torch.rand(2, 3, *size), {}
    for activation in ACTIVATIONS:
        torch.manual_seed(0)
        made[activation] = Explainer(build(), InputSpec(size, HALF, HALF), "vit", activation)(image)
    logits = torch.logit(made["sigmoid"])
    for activation, masks in made.items():
        torch.testing.assert_close(masks, activate(logits, activation), rtol=1e-4, atol=1e-5)


def test_backbone_starts_from_the_explainees_own_weights(make_explainee):
    explainee = make_explainee("vit")
    explainer = Explainer.for_explainee("tiny_vit", explainee)
    for key, value in explainer.backbone.state_dict().items():
        assert torch.equal(value, explainee.model.state_dict()[key])
    with torch.no_grad():
        explainer.backbone.blocks[0].mlp.fc1.weight.add_(1)
    own = explainee.model.blocks[0].mlp.fc1.weight
    assert not torch.equal(own, explainer.backbone.blocks[0].mlp.fc1.weight)
    assert torch.equal(explainer.mean, explainee.mean) and torch.equal(explainer.std, explainee.std)
    assert explainee(torch.rand(1, 3, 32, 32)).shape == (1, 5)  # it has kept its classifier


def test_a_backbone_whose_tokens_fit_no_grid():
    class Odd(torch.nn.Module):
        num_prefix_tokens = 0

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def reset_classifier(self, n):
            pass

        def forward_features(self, x):
            return x.flatten(2).transpose(1, 2)[:, :7]

    with pytest.raises(UserError, match="'odd' gives 7 tokens, which fit no grid"):
        Explainer(Odd(), InputSpec((8, 8), HALF, HALF), "odd")


# Files.


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_round_trip(make_explainer, tmp_path, kind):
    first, second = make_explainer(kind, seed=1), make_explainer(kind, seed=2)
    image = torch.rand(1, 3, 32, 32)
    assert not torch.equal(first(image), second(image))
    save_explainer(tmp_path / "best.safetensors", first, "some_model", {"epoch": 3})
    metadata = load_explainer(tmp_path / "best.safetensors", second)
    assert torch.equal(first(image), second(image))
    assert metadata == {
        "explainer": first.name,
        "explainee": "some_model",
        "activation": "sigmoid",
        "epoch": 3,
    }


def test_half_precision_round_trip(make_explainer, tmp_path):
    first, second = make_explainer(seed=1), make_explainer(seed=2)
    save_explainer(tmp_path / "best.safetensors", first, "some_model", {}, half=True)
    stored, _ = load_safetensors(tmp_path / "best.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    load_explainer(tmp_path / "best.safetensors", second)
    for key, value in second.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, first.state_dict()[key].half().float(), rtol=0, atol=0)


def test_weights_of_another_explainer_name_the_first_mismatch(make_explainer, tmp_path):
    path = tmp_path / "best.safetensors"
    save_explainer(path, make_explainer("vit"), "some_model", {})
    with pytest.raises(
        UserError, match=r"does not fit explainer 'tiny_cnn': 'backbone.conv1.weight' is missing"
    ):
        load_explainer(path, make_explainer("cnn"))
    with pytest.raises(UserError, match=r"'backbone.pos_embed' is \(1, 17, 16\), wanted \(1, 65, 16\)"):
        load_explainer(path, make_explainer("vit", size=(64, 64)))


def test_damaged_file(make_explainer, tmp_path):
    path = tmp_path / "best.safetensors"
    save_explainer(path, make_explainer(), "some_model", {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"best.safetensors.*is the file whole"):
        load_explainer(path, make_explainer())


def test_where_explainers_are_looked_for(places, tmp_path):
    def put(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return path

    ours = put(places / "checkpoints" / "vit_base" / "target" / "best.safetensors")
    other = put(places / "checkpoints" / "vit_base_224__resnet" / "predicted" / "best.safetensors")
    given = put(tmp_path / "run" / "best.safetensors")
    assert find_explainer("vit_base_224", "vit_base_224", True, None) == ours
    assert find_explainer("vit_base_224", "resnet", False, None) == other
    assert find_explainer("vit_base_224", "vit_base_224", True, given) == given
    assert find_explainer("vit_base_224", "vit_base_224", True, given.parent) == given
    with pytest.raises(UserError, match=r"no pLTX explainer.*predicted.*run_seg_cls.py"):
        find_explainer("vit_base_224", "vit_base_224", False, None)
    with pytest.raises(UserError, match="no such file or training run"):
        find_explainer("vit_base_224", "vit_base_224", True, tmp_path / "nothing")


def test_digits_explainer_has_an_8x8_grid(digits_weights):
    from ltx.models.explainee import Explainee

    explainee = Explainee.from_name("vit_digits", digits_weights.explainee)
    assert Explainer.for_explainee("vit_digits", explainee).grid == (8, 8)
    assert create_model("vit_digits").num_classes == 10


# Masks finer than the tokens.


def scaled(name, scale):
    torch.manual_seed(0)
    build, size, grid = BACKBONES[name]
    explainer = Explainer(build(), InputSpec(size, HALF, HALF), name, mask_scale=scale)
    return explainer, size, tuple(scale * side for side in grid)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("scale", [2, 4])
def test_mask_scale_multiplies_the_grid(name, scale):
    explainer, size, grid = scaled(name, scale)
    masks = explainer(torch.rand(2, 3, *size))
    assert masks.shape == (2, 1, *grid) and explainer.grid == grid
    assert masks.min() > 0 and masks.max() < 1
    masks.sum().backward()
    assert not [key for key, value in explainer.trainable().items() if value.grad is None]


def test_values_of_a_token_lie_in_its_patch():
    explainer, size, _ = scaled("vit_not_square", 2)
    tokens = torch.arange(12.0).view(1, 12, 1)
    explainer.backbone.forward_features = lambda x: torch.nn.functional.pad(tokens, (0, 0, 1, 0))
    explainer.head = torch.nn.Conv1d(12, 12, 1)
    explainer.head.forward = lambda features: features + torch.arange(4) / 10
    logits = torch.logit(explainer(torch.rand(1, 3, *size)))[0, 0]
    for row in range(4):
        for column in range(12):
            token = row // 2 * 6 + column // 2
            wanted = token + (row % 2 * 2 + column % 2) / 10
            assert abs(logits[row, column].item() - wanted) < 1e-3 * max(1, 2.718 ** (wanted - 6))


def test_a_cnn_reads_the_stages_of_the_finer_grids():
    explainer, size, _ = scaled("resnet", 4)
    stages = explainer.backbone.forward_intermediates(torch.rand(1, 3, *size), intermediates_only=True)
    assert [tuple(stages[i].shape[-2:]) for i in explainer._stages] == [(12, 8), (6, 4)]


def test_a_cnn_whose_stages_timm_does_not_give(monkeypatch):
    monkeypatch.delattr(type(BACKBONES["resnet"][0]()), "forward_intermediates")
    explainer, size, grid = scaled("resnet", 4)
    assert explainer._stages == [] and explainer(torch.rand(1, 3, *size)).shape[-2:] == grid


def test_no_such_mask_scale():
    with pytest.raises(UserError, match="--mask-scale 3: choose from 1, 2, 4, 8"):
        scaled("vit", 3)


def test_halo_is_stored_and_applied(tmp_path):
    torch.manual_seed(0)
    explainer = Explainer.untrained("test_efficientnet")
    images = torch.rand(1, 3, *explainer.input_size)
    plain = explainer(images)
    explainer.halo = 0.25
    file = tmp_path / "best.safetensors"
    save_explainer(file, explainer, "some_model", {})
    found = read_explainer(file)
    assert found.halo == 0.25 and torch.equal(found(images), with_halo(plain, 0.25))
    for bad in ("1.5", "nan", "much"):
        save_explainer(file, Explainer.untrained("test_efficientnet"), "some_model", {"mask_halo": bad})
        with pytest.raises(UserError, match=r"mask_halo '.*', which is not in"):
            read_explainer(file)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_efficientnet"])
def test_mask_scale_is_stored(tmp_path, name):
    torch.manual_seed(0)
    explainer = Explainer.untrained(name, mask_scale=2)
    save_explainer(tmp_path / "best.safetensors", explainer, "some_model", {})
    found = read_explainer(tmp_path / "best.safetensors")
    images = torch.rand(1, 3, *explainer.input_size)
    assert found.mask_scale == 2 and torch.equal(found(images), explainer(images))
    with pytest.raises(UserError, match="does not fit explainer"):
        load_explainer(tmp_path / "best.safetensors", Explainer.untrained(name))
