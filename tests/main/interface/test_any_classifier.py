"""`explain` for classifiers, images and questions as users have them."""

import logging

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from ltx.config import CropSize, UserError
from ltx.main.api import Explainee, Explainer, explain
from ltx.models.explainer import Explainer as ExplainerClass
from ltx.models.explainer_files import read_explainer, save_explainer
from ltx.models.ownership import ownership
from ltx.models.registry import InputSpec
from ltx.tests.support.classifiers import MEAN, SIZE, STD, net

RGB = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def fresh(make_backbone, monkeypatch):
    """`fresh(explainee, **options)`: `Explainer.from_name` of a tiny CNN."""
    monkeypatch.setattr("ltx.models.backbones.load_pretrained", lambda name, **_: make_backbone("cnn"))
    spec = InputSpec((128, 128), MEAN, STD)
    monkeypatch.setattr("ltx.models.backbones.input_spec", lambda model: spec)
    return lambda explainee, **options: Explainer.from_name("tiny_cnn", explainee, **options)


def own(module=None, **options) -> Explainee:
    return Explainee.from_module(module or net(), MEAN, STD, SIZE, **options)


class Half(nn.Module):
    """A value that depends on the left half of the image alone."""

    def forward(self, x):
        return x[..., : x.shape[-1] // 2].mean((1, 2, 3))


# Questions.


def left_share(explanation) -> torch.Tensor:
    masks = explanation.token_masks
    half = masks.shape[-1] // 2
    return masks[..., :half].sum((1, 2)) / masks.sum((1, 2))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (40.0, 58.0), (-3.0, 0.0), (1e-3, 0.0)])
def test_a_regression_model_by_a_function(scale, shift, make_explainer):
    class Age(nn.Module):
        def forward(self, x):
            return scale * Half()(x)[:, None] + shift

    explainee = own(Age())
    images = 0.5 + 0.3 * torch.rand(2, 3, 32, 32)
    found = explain(
        make_explainer(activation="softmax"), explainee, images, target=lambda output: output[:, 0], lr=3e-3
    )
    assert found.target.tolist() == [-1, -1]
    assert (left_share(found) > 0.8).all()
    normalised = (images - 0.5) / 0.25
    torch.testing.assert_close(found.scores["score"], Age()(normalised)[:, 0], rtol=1e-4, atol=1e-6)
    assert "probability" not in found.scores
    kept, lost = (
        abs(found.scores[name] - found.scores["score"]) for name in ("masked_score", "complement_score")
    )
    assert (kept < lost).all()


def test_functions_of_images_do_not_mix(make_explainer):
    """Each image's masks are the same alone and beside others."""
    explainee, explainer = own(), make_explainer()

    def masks(images):
        return explain(
            explainer, explainee, images, target=lambda y: y[:, 1] - y[:, 2], steps=4, lr=1e-2, batch_size=2
        ).token_masks

    images = torch.rand(3, 3, 32, 32)
    alone = torch.cat([masks(image[None]) for image in images])
    torch.testing.assert_close(masks(images), alone, rtol=0, atol=1e-5)


def test_a_detector_with_random_weights(make_explainer):
    detector = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3, score_thresh=0.0
    )
    explainee = Explainee.from_module(detector, 0.0, 1.0, (64, 64))
    found = explain(
        make_explainer(), explainee, torch.rand(1, 3, 64, 64),
        target=lambda output: torch.stack([boxes["scores"][:5].sum() for boxes in output]), steps=2,
    )  # fmt: skip
    assert found.saliency.shape == (1, 64, 64) and found.scores["score"] > 0
    with pytest.raises(UserError, match="pass a function as the target"):
        explain(make_explainer(), explainee, torch.rand(1, 3, 64, 64), steps=2)


def test_similarity_to_a_text_of_a_pair_of_encoders(make_explainer):
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual, self.words = net(8), nn.Embedding(10, 8)

        def forward(self, x):
            return {"image_embeds": nn.functional.normalize(self.visual(x), dim=1)}

    clip = Clip()
    text = nn.functional.normalize(clip.words(torch.tensor([3])), dim=1).detach()
    explainee = own(clip)
    images = torch.rand(2, 3, 32, 32)
    found = explain(
        make_explainer(), explainee, images, target=lambda y: (y["image_embeds"] @ text.T)[:, 0], steps=3
    )
    wanted = (clip((images - 0.5) / 0.25)["image_embeds"] @ text.T)[:, 0]
    torch.testing.assert_close(found.scores["score"], wanted)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y: y, r"target gives torch.float32 \(1, 5\) for 1 images"),
        (lambda y: y.argmax(1), "target gives torch.int64"),
        (lambda y: y[:, 0].detach(), "target's score on 'Sequential' has no gradient"),
        (lambda y: None, "target gives NoneType"),
    ],
)
def test_functions_that_give_no_score(function, message, make_explainer):
    with pytest.raises(UserError, match=message):
        explain(make_explainer(), own(), RGB, target=function, steps=2)


def test_a_function_has_no_class_for_pos_and_none_to_ask_about(make_explainer, make_explainee):
    with pytest.raises(UserError, match="'best_pos' needs a class"):
        explain(make_explainer(), own(), RGB, target=lambda y: y[:, 0], steps=2, variant="best_pos")
    explainee = make_explainee()
    asked = Explainer.for_explainee(explainee.name, explainee, class_conditional=True)
    with pytest.raises(UserError, match="a function is none"):
        explain(asked, explainee, RGB, target=lambda y: y[:, 0], steps=2)


@pytest.mark.parametrize("target", [1.5, True, "cat", [0.0, 1.0]])
def test_targets_that_are_no_classes(target, make_explainer):
    with pytest.raises(UserError, match="target"):
        explain(make_explainer(), own(), RGB, target=target, steps=1)


def test_both_answers_of_a_question_can_be_asked_for(make_explainer):
    """One output is explained as the two classes that it stands for."""

    class TwoClasses(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(1)

        def forward(self, x):
            yes = self.net(x)
            return torch.cat([-yes / 2, yes / 2], 1)

    def masks(module, target):
        return explain(make_explainer(), own(module), RGB, target=target, steps=4, lr=1e-2).token_masks

    no, yes = (masks(net(1), target) for target in (0, 1))
    assert (no - yes).abs().max() > 1e-3
    torch.testing.assert_close(no, masks(TwoClasses(), 0), rtol=0, atol=1e-4)
    torch.testing.assert_close(yes, masks(TwoClasses(), 1), rtol=0, atol=1e-4)


# Images.


def as_array(images) -> np.ndarray:
    return (255 * images).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("images", "n"),
    [
        (RGB[0], 1),
        (RGB.double(), 2),
        (RGB.half(), 2),
        (RGB.clone().requires_grad_(True), 2),
        ((255 * RGB).round().byte(), 2),
        ((65535 * RGB).round().to(torch.uint16), 2),
        (RGB.numpy(), 2),
        (as_array(RGB), 2),
        (as_array(RGB)[0], 1),
        (Image.fromarray(as_array(RGB)[0]), 1),
        ([Image.fromarray(array) for array in as_array(RGB)], 2),
    ],
    ids=["CHW", "double", "half", "grad", "uint8", "uint16", "numpy", "BHWC", "HWC", "Pillow", "list"],
)
def test_images_in_all_forms(images, n, make_explainer):
    explainer, explainee = make_explainer(), own()
    explainer.metadata = {}
    found = explain(explainer, explainee, images)
    assert found.saliency.shape == (n, 40, 50)
    wanted = explain(explainer, explainee, RGB[:n])
    torch.testing.assert_close(found.saliency, wanted.saliency, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (RGB.permute(0, 2, 3, 1), r"wanted \(B, 3, H, W\), channels first"),
        (255 * RGB, "divide them by 255"),
        ((255 * RGB).long(), r"images are torch.int64; wanted floats in \[0, 1\], or uint8"),
        (RGB > 0.5, "images are torch.bool"),
        (RGB[:0], "wanted"),
        ("photo.jpg", "images are a str"),
        (None, "images are a NoneType"),
        ([Image.new("RGB", (4, 5)), Image.new("RGB", (5, 4))], "of different sizes"),
        (np.array([[None]]), "array of object"),
    ],
)
def test_images_that_are_refused(images, message, make_explainer):
    with pytest.raises(UserError, match=message):
        explain(make_explainer(), own(), images, steps=1)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_any_number_of_channels_from_end_to_end(channels, fresh, tmp_path):
    explainee = Explainee.from_module(net(channels=channels), 0.5, 0.25, SIZE)
    explainer = fresh(explainee)
    images = torch.rand(2, channels, 40, 50)
    found = explain(explainer, explainee, images, target=1, steps=3)
    assert found.saliency.shape == (2, 40, 50) and found.saliency.isfinite().all()
    assert (explainer.adaptor is None) == (channels == 1)
    if channels == 1:
        return
    assert "adaptor.weight" in explainer.trainable()
    with pytest.raises(UserError, match=f"wanted \\(B, {channels}, H, W\\)"):
        explain(explainer, explainee, RGB, steps=1)
    with pytest.raises(UserError, match=r"make one with Explainer\.from_name"):
        explain(fresh(own()), explainee, images, steps=1)


# Explainers.


def test_fresh_explainers_are_equal_unless_the_seed_differs(fresh):
    explainee = own()
    random = torch.get_rng_state()
    first, again, other = fresh(explainee), fresh(explainee), fresh(explainee, seed=7)
    assert torch.equal(torch.get_rng_state(), random)
    masks = [explain(e, explainee, RGB, target=1, steps=4).token_masks for e in (first, again, other)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (32, 64)])
def test_small_images_are_enlarged_for_the_explainer(size, fresh, caplog, tmp_path, monkeypatch):
    explainee = Explainee.from_module(net(), MEAN, STD, (32, 32))
    with caplog.at_level(logging.WARNING):
        explainer = fresh(explainee, input_size=size)
    assert min(explainer.grid) >= 4 and "sees them enlarged" in caplog.text
    assert explainer.input_size[0] * size[1] == explainer.input_size[1] * size[0]
    found = explain(explainer, explainee, torch.rand(1, 3, 32, 32), target=0, steps=10)
    assert found.token_masks.std() > 1e-3


def test_size_and_normalisation_of_an_explainer_are_stored(make_backbone, tmp_path, monkeypatch):
    spec = InputSpec((96, 128), (0.1, 0.2, 0.3, 0.4), (0.5,) * 4)
    first = ExplainerClass(make_backbone("cnn"), spec, "tiny_cnn")
    monkeypatch.setattr("ltx.models.explainer.create_model", lambda name, **_: make_backbone("cnn", seed=9))
    save_explainer(tmp_path / "best.safetensors", first, "mine", {})
    again = read_explainer(tmp_path / "best.safetensors")
    assert (again.input_size, again.grid, again.channels) == (first.input_size, first.grid, 4)
    images = torch.rand(1, 4, 96, 128)
    torch.testing.assert_close(again(images), first(images))


def test_an_explainer_of_another_explainee_is_named_in_a_warning(make_explainee, make_explainer, caplog):
    explainer, first, second = make_explainer(), make_explainee(), make_explainee(seed=5)
    explainer.metadata = dict(ownership(first))
    with caplog.at_level(logging.WARNING):
        explain(explainer, first, RGB)
        assert "another explainee" not in caplog.text
        explain(explainer, second, RGB)
        explain(explainer, second, RGB)
    assert caplog.text.count("was trained for another explainee") == 1


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_explaining_where_gradients_are_off(context, fresh):
    wanted = explain(fresh(own()), own(), RGB, target=1, steps=3).token_masks
    with context():
        explainee = own()
        found = explain(fresh(explainee), explainee, RGB.clone(), target=1, steps=3).token_masks
    torch.testing.assert_close(found, wanted)


def test_default_type_float64(fresh):
    torch.set_default_dtype(torch.float64)
    try:
        module = net()
        explainee = own(module)
        found = explain(fresh(explainee), explainee, RGB, target=1, steps=2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.token_masks.dtype == torch.float32


def test_an_explainee_that_turns_nan_is_one_line(make_explainer):
    module = net()
    explainee = own(module)
    module[-1].bias.data.fill_(torch.nan)
    with pytest.raises(UserError, match="'Sequential' gives NaN or infinite values for these images"):
        explain(make_explainer(), explainee, RGB, steps=2)


def test_a_centre_crop_leaves_the_margins_of_the_map_empty(make_explainer):
    explainee = own()
    explainee.input_size = CropSize(SIZE, 0.8, "bilinear")
    explainer = make_explainer()
    explainer.metadata = {}
    images = torch.rand(1, 3, 100, 160)
    found = explain(explainer, explainee, images)
    shown = images[:, :, 10:90, 40:120]
    inside = found.saliency[:, 10:90, 40:120]
    assert (inside > 0).all() and (found.saliency > 0).sum() == inside.numel()
    direct = own()
    torch.testing.assert_close(
        found.token_masks, explain(explainer, direct, shown).token_masks, atol=0.05, rtol=0
    )
