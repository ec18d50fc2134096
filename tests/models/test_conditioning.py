"""Class-conditional explainers: what the class changes, what it does not, and files."""

import copy
import logging

import pytest
import timm
import torch
from torch import nn

from ltx.config import UserError
from ltx.models.conditioning import CLASSIFIER, LEARNED, ClassCondition, class_rows_of, classifier_rows
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import find_explainer, load_explainer, read_explainer, save_explainer
from ltx.models.registry import InputSpec

SPEC = InputSpec((32, 32), (0.4, 0.5, 0.6), (0.3, 0.25, 0.2))


def stir(explainer, seed=0):
    """Gives the parts that start at zero random weights, so that everything takes part."""
    generator = torch.Generator().manual_seed(seed)
    for value in (*explainer.condition.parameters(), *explainer.head.parameters()):
        value.data = torch.randn(value.shape, generator=generator) * 0.3
    return explainer


@pytest.fixture
def conditional(make_explainee):
    def make(kind="vit", rows=None, **arguments):
        explainee = make_explainee(kind)
        rows = class_rows_of(explainee) if rows is None else rows
        torch.manual_seed(1)
        return Explainer(copy.deepcopy(explainee.model), SPEC, f"tiny_{kind}", class_rows=rows, **arguments)

    return make


@pytest.mark.parametrize("rows", [None, 5], ids=["classifier rows", "learned"])
@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_class_changes_the_mask_and_gradients_reach_everything_that_learns(conditional, kind, rows):
    explainer = stir(conditional(kind, rows))
    images = torch.rand(2, 3, 32, 32)
    masks = [explainer(images, torch.full((2,), c)) for c in (0, 3)]
    assert masks[0].shape == (2, 1, *explainer.grid)
    assert (masks[0] - masks[1]).abs().max() > 1e-3
    masks[0].sum().backward()
    without = [name for name, p in explainer.trainable().items() if p.grad is None or not p.grad.any()]
    assert not without
    assert ("condition.rows" in explainer.trainable()) == (rows is not None)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_many_classes_of_an_image_share_its_features(conditional, kind):
    explainer, images = stir(conditional(kind)), torch.rand(2, 3, 32, 32)
    classes = torch.tensor([4, 0, 1, 2, 2, 3])
    together = explainer(images, classes)
    assert together.shape[0] == 6
    for row, c in enumerate(classes):
        alone = explainer(images[row // 3][None], c[None])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-6)


def test_formula(conditional):
    """The condition on one token, written out by hand."""
    condition = stir(conditional("vit")).condition
    features, classes = torch.randn(2, 4, 16), torch.tensor([1, 3])
    made, logits = condition(features, classes)
    for image in range(2):
        row = condition.rows[classes[image]]
        query = condition.query.weight @ row + condition.query.bias
        scale_and_shift = condition.film.weight @ query + condition.film.bias
        for token in range(4):
            z = features[image, token]
            key = condition.key.weight @ z + condition.key.bias
            logit = (condition.direct * row * z).sum() + (key * query).sum() / 128**0.5
            torch.testing.assert_close(logits[image, token, 0], logit, rtol=1e-4, atol=1e-5)
            expected = z * (1 + scale_and_shift[:16]) + scale_and_shift[16:]
            torch.testing.assert_close(made[image, token], expected, rtol=1e-4, atol=1e-5)


def test_starts_from_the_plain_explainer_and_the_class_activation_map(conditional, make_explainee):
    """A CNN's untrained logits: rows times features over sqrt(d), less a constant, or a plain head."""
    explainer = conditional("cnn")
    torch.manual_seed(1)
    plain = Explainer(make_explainee("cnn").model, SPEC, "tiny_cnn")
    images, classes = torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    weight = make_explainee("cnn").model.fc.weight
    rows = weight - weight.mean(0)
    rows = rows / rows.square().mean().sqrt()
    features = plain.backbone.forward_features((images - plain.mean) / plain.std)
    cam = torch.einsum("bdhw,bd->bhw", features, rows[classes]) / features.shape[1] ** 0.5
    torch.testing.assert_close(explainer(images, classes).logit()[:, 0], cam - 2, rtol=1e-3, atol=1e-4)
    explainer.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(
        explainer(images, classes).logit()[:, 0], plain(images).logit()[:, 0] + cam, rtol=1e-3, atol=1e-4
    )


def test_plain_explainer_is_the_same_to_the_bit_and_ignores_classes(make_explainer):
    explainer, images = make_explainer(), torch.rand(2, 3, 32, 32)
    assert not explainer.class_conditional and "condition" not in "".join(explainer.state_dict())
    features = explainer.backbone.forward_features((images - explainer.mean) / explainer.std)
    expected = explainer.head(features[:, 1:]).transpose(1, 2).unflatten(2, explainer.grid).sigmoid()
    assert torch.equal(explainer(images), expected)
    assert torch.equal(explainer(images, torch.tensor([1, 2])), expected)


def test_without_a_class_it_says_so(conditional):
    with pytest.raises(UserError, match="class-conditional: pass the class"):
        conditional()(torch.rand(1, 3, 32, 32))


# Rows.


@pytest.mark.parametrize(
    "name, width",
    [("test_vit", 64), ("test_efficientnet", 256), ("test_convnext", 64), ("test_resnet", 256)],
)
def test_rows_of_timm_models_are_those_of_their_classifier(name, width):
    model = timm.create_model(name, num_classes=7)
    rows = classifier_rows(model, 7)
    assert torch.equal(rows, model.get_classifier().weight) and rows.shape[0] == 7
    explainee = Explainee(model, InputSpec((64, 64), SPEC.mean, SPEC.std), name)
    explainer = Explainer(copy.deepcopy(model), explainee.spec, name, class_rows=rows)
    assert explainer.condition.direct is not None
    assert explainer(torch.rand(1, 3, 64, 64), torch.tensor([6])).shape == (1, 1, *explainer.grid)


def test_rows_of_swin_and_of_a_distilled_head():
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=8, depths=(2, 2),
        num_heads=(2, 2), num_classes=7,
    )  # fmt: skip
    explainer = Explainer(copy.deepcopy(swin), InputSpec((64, 64), SPEC.mean, SPEC.std), "swin",
                          class_rows=classifier_rows(swin, 7))  # fmt: skip
    assert explainer(torch.rand(2, 3, 64, 64), torch.tensor([6, 0])).shape == (2, 1, *explainer.grid)
    deit = timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=64, embed_dim=16, depth=2, num_heads=2, num_classes=7
    )
    assert torch.equal(classifier_rows(deit, 7), deit.head.weight)


def test_rows_of_other_modules_and_of_none(caplog):
    last = nn.Linear(6, 4)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.Linear(4, 6), last)
    assert torch.equal(classifier_rows(module, 4), last.weight)
    convolutional = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert classifier_rows(convolutional, 5).shape == (5, 3)
    assert (
        classifier_rows(nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 5) is None
    )
    bare = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    explainee = Explainee.from_module(bare, SPEC.mean, SPEC.std, SPEC.size)
    with caplog.at_level(logging.WARNING):
        assert class_rows_of(explainee) == 3
    assert "no linear classifier" in caplog.text


def test_rows_of_one_class_and_of_equal_ones_stay_finite():
    for rows in (torch.randn(1, 8), torch.ones(3, 8)):
        assert torch.isfinite(ClassCondition(rows, 8)(torch.randn(1, 4, 8), torch.tensor([0]))[1]).all()


# Files.


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("rows, kind", [(None, CLASSIFIER), (5, LEARNED)])
def test_files_say_that_they_are_class_conditional_and_load_back(
    conditional, make_backbone, monkeypatch, tmp_path, rows, kind, half
):
    monkeypatch.setattr("ltx.models.explainer.create_model", lambda name: make_backbone("vit"))
    monkeypatch.setattr("ltx.models.explainer.input_spec", lambda model: SPEC)
    explainer = stir(conditional("vit", rows))
    save_explainer(tmp_path / "best.safetensors", explainer, "tiny_vit", {}, half)
    for path in (tmp_path, tmp_path / "best.safetensors"):
        again = read_explainer(path)
        assert again.class_conditional and again.metadata["class_conditional"] == kind
        images, classes = torch.rand(2, 3, 32, 32), torch.tensor([1, 4])
        tolerance = 1e-2 if half else 0
        torch.testing.assert_close(again(images, classes), explainer(images, classes), rtol=0, atol=tolerance)


def test_plain_and_conditional_files_are_not_taken_for_each_other(conditional, make_explainer, tmp_path):
    save_explainer(tmp_path / "plain.safetensors", make_explainer(), "tiny_vit", {})
    save_explainer(tmp_path / "asked.safetensors", conditional(), "tiny_vit", {})
    with pytest.raises(UserError, match=r"plain\.safetensors is not class-conditional"):
        load_explainer(tmp_path / "plain.safetensors", conditional())
    with pytest.raises(UserError, match=r"asked\.safetensors is class-conditional"):
        load_explainer(tmp_path / "asked.safetensors", make_explainer())


def test_it_has_a_place_of_its_own(places):
    with pytest.raises(UserError, match=r"run_seg_cls\.py --class-conditional True") as error:
        find_explainer("vit_base_224", "vit_base_224", True, None, True)
    assert "class_conditional/best.safetensors" in str(error.value) and "authors" not in str(error.value)
    path = places / "checkpoints" / "vit_base" / "class_conditional" / "best.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_explainer("vit_base_224", "vit_base_224", False, None, True) == path
