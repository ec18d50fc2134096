"""The Python interface: any classifier, any number of classes, sigmoid outputs, any size of images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ltx import config
from ltx.config import UserError
from ltx.main.api import (
    FRESH_HEAD,
    TRAINED,
    Explainee,
    Explainer,
    Objective,
    defaults_of,
    explain,
    read_explainer,
)
from ltx.models.explainee import read_class

MEAN, STD, SIZE = (0.4, 0.5, 0.6), (0.3, 0.25, 0.2), (24, 40)


class OwnClassifier(nn.Module):
    """A user's network, which knows nothing of this project."""

    def __init__(self, n_classes: int = 3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=4), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.classify = nn.Linear(24, n_classes)
        nn.init.normal_(self.classify.weight, std=2.0)

    def forward(self, x):
        return self.classify(self.body(x))


class LooksAtCorner(nn.Module):
    """Class 0 where the upper left quarter is bright, class 1 where the lower right one is."""

    def forward(self, x):
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        corners = torch.stack([x[..., :h, :w].mean((1, 2, 3)), x[..., h:, w:].mean((1, 2, 3))], 1)
        return 12 * torch.cat([corners, corners.new_full((len(x), 1), 0.3)], 1)


def own(n_classes: int = 3, multi_label: bool = False) -> Explainee:
    return Explainee.from_module(OwnClassifier(n_classes), MEAN, STD, SIZE, multi_label=multi_label)


@pytest.fixture
def trained(make_explainer) -> Explainer:
    """An explainer as a checkpoint leaves it."""
    explainer = make_explainer()
    explainer.metadata = {}
    return explainer


def test_explainee_from_a_module_normalises_freezes_and_counts_classes():
    module = OwnClassifier(4).train()
    explainee = Explainee.from_module(module, MEAN, STD, SIZE)
    images = torch.rand(2, 3, *SIZE)
    normalised = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    torch.testing.assert_close(explainee(images), module.eval()(normalised))
    assert explainee.num_classes == 4
    assert (explainee.name, explainee.input_size) == ("OwnClassifier", SIZE)
    assert not explainee.model.training
    assert not any(value.requires_grad for value in explainee.parameters())


def test_outputs_with_logits_are_unwrapped():
    class Wrapped(OwnClassifier):
        def forward(self, x):
            return SimpleNamespace(logits=super().forward(x))

    assert Explainee.from_module(Wrapped(), MEAN, STD, SIZE).num_classes == 3


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Identity(), r"gives \(1, 3, 24, 40\) for one image; wanted logits"),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), r"takes no images of size \(24, 40\)"),
    ],
)
def test_modules_that_are_no_classifiers_are_one_line(module, message):
    with pytest.raises(UserError, match=message):
        Explainee.from_module(module, MEAN, STD, SIZE)


def test_a_forward_pass_gives_masks_maps_and_scores(trained):
    explainee, images = own(), torch.rand(3, 3, *SIZE)
    explanation = explain(trained, explainee, images, batch_size=2)
    masks = trained(images)
    torch.testing.assert_close(explanation.token_masks, masks[:, 0])
    saliency = F.interpolate(masks, SIZE, mode="bilinear", align_corners=False)
    torch.testing.assert_close(explanation.saliency, saliency[:, 0])
    logits = explainee(images)
    assert explanation.target.tolist() == logits.argmax(1).tolist()
    rows = torch.arange(3)
    for name, pixels in {
        "probability": images,
        "masked_probability": images * saliency,
        "complement_probability": images * (1 - saliency),
    }.items():
        e = np.exp(logits_of(explainee, pixels))
        wanted = e[rows, explanation.target] / e.sum(1)
        np.testing.assert_allclose(explanation.scores[name], wanted, atol=1e-6)
    torch.testing.assert_close(explanation.scores["mask_area"], saliency.mean((1, 2, 3)))
    assert (explanation.variant, list(explanation.variants), explanation.figures) == ("pltx", ["pltx"], {})


def logits_of(explainee, pixels) -> np.ndarray:
    with torch.no_grad():
        return explainee(pixels).double().numpy()


def test_sigmoid_outputs_have_their_own_probability_loss_and_correctness():
    explainee, images = own(5, multi_label=True), torch.rand(6, 3, *SIZE)
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    own_logits = logits_of(explainee, images)[np.arange(6), classes]
    probability, correct = read_class(explainee, images, classes)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-own_logits)), atol=1e-6)
    assert correct.tolist() == (own_logits > 0).astype(float).tolist()
    losses = Objective(mask_loss_mul=0.0)(explainee, images, torch.ones(6, 1, 3, 5), classes)
    np.testing.assert_allclose(losses["prediction_loss"], np.log1p(np.exp(-own_logits)), rtol=1e-5)


def test_sigmoid_explanation_works_for_one_logit(make_explainer):
    explainee = own(1, multi_label=True)
    images = torch.rand(2, 3, *SIZE)
    explanation = explain(make_explainer(), explainee, images, steps=2)
    logit = np.diff(logits_of(explainee, images), axis=1)[:, 0]
    assert explanation.target.tolist() == (logit > 0).astype(int).tolist()
    wanted = 1 / (1 + np.exp(-np.abs(logit)))
    np.testing.assert_allclose(explanation.scores["probability"], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "quarter"), [(0, (slice(0, 2), slice(0, 2))), (1, (slice(2, 4), slice(2, 4)))]
)
def test_steps_find_where_the_class_lies(target, quarter, make_explainer):
    """A classifier that looks at one quarter for each class, and a random explainer."""
    explainee = Explainee.from_module(LooksAtCorner(), (0.0,) * 3, (1.0,) * 3, (32, 32))
    images = torch.full((1, 3, 32, 32), 0.6) + 0.1 * torch.rand(1, 3, 32, 32)
    explainer = make_explainer(activation="softmax")
    before = {name: value.clone() for name, value in explainer.state_dict().items()}
    explanation = explain(explainer, explainee, images, target=target, lr=3e-3)
    mask = explanation.token_masks[0]
    outside = (mask.sum() - mask[quarter].sum()) / 12
    assert mask[quarter].mean() > 3 * outside
    assert explanation.scores["masked_probability"] > explanation.scores["complement_probability"] + 0.2
    assert explanation.figures["loss"].shape == (1, FRESH_HEAD.steps)
    assert all(torch.equal(value, before[name]) for name, value in explainer.state_dict().items())


def test_images_of_any_size_and_type_are_resized_for_the_explainee(trained):
    explainee = own()
    images = torch.randint(0, 256, (2, 3, 90, 70), dtype=torch.uint8)
    explanation = explain(trained, explainee, images)
    resized = F.interpolate(images / 255, SIZE, mode="bilinear", antialias=True)
    torch.testing.assert_close(explanation.token_masks, trained(resized)[:, 0], atol=1e-5, rtol=0)
    assert explanation.saliency.shape == (2, 90, 70)
    same = explain(trained, explainee, images / 255)
    torch.testing.assert_close(same.saliency, explanation.saliency)


def test_default_steps_depend_on_explainer_and_target(trained, make_explainer):
    explainee, images = own(), torch.rand(1, 3, *SIZE)
    assert explain(trained, explainee, images).figures == {}
    with_target = explain(trained, explainee, images, target=1)
    assert with_target.figures["loss"].shape == (1, TRAINED.steps)
    assert with_target.variant == "last"
    selected = explain(trained, explainee, images, steps=3, variant="best_pos")
    assert set(selected.variants) == {"pltx", "last", "best_loss", "best_pos"}
    assert selected.figures["pos_auc"].shape == (1, 3)
    assert defaults_of(make_explainer()) is FRESH_HEAD


def test_finetuning_goes_on_with_the_objective_of_pretraining(trained):
    assert defaults_of(trained).objective.mask_loss_mul == 50
    trained.name = "vit_small_224"
    assert defaults_of(trained).objective.mask_loss_mul == 30
    trained.metadata = {"objective": {"mask_loss_mul": 7.0, "is_ce_neg": True}}
    assert defaults_of(trained).objective == Objective(mask_loss_mul=7.0, is_ce_neg=True)
    assert (defaults_of(trained).steps, defaults_of(trained).lr) == (TRAINED.steps, TRAINED.lr)


def test_rate_and_objective_of_the_recipe_that_an_explainer_was_pretrained_with(make_explainer, monkeypatch):
    values = {"finetune_lr": 3e-4, "smooth_loss_mul": 2.0, "mask_fill": "mean"}
    monkeypatch.setitem(config.RECIPES, "own", (config.Rule(values=values, stage="finetuning"),))
    trained = make_explainer()
    trained.metadata = {"recipe": "own", "objective": {"mask_loss": "l1"}}
    found = defaults_of(trained)
    assert (found.lr, found.objective) == (3e-4, Objective("l1", fill="mean", smooth_loss_mul=2.0))
    assert defaults_of(trained, "released").lr == TRAINED.lr
    assert trained.metadata["objective"] == {"mask_loss": "l1"}, "what a file says stays as it was read"
    trained.metadata = {"recipe": "gone"}
    with pytest.raises(UserError, match="there is no recipe 'gone'"):
        defaults_of(trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.rand(4, 24, 40)}, r"images are \(4, 24, 40\); wanted \(B, 3, H, W\)"),
        ({"images": torch.rand(1, 1, 24, 40)}, r"wanted \(B, 3, H, W\)"),
        ({"images": torch.randn(1, 3, 24, 40)}, r"must lie in \[0, 1\]"),
        ({"images": torch.full((1, 3, 24, 40), torch.nan)}, r"must lie in \[0, 1\]"),
        ({"target": 3}, r"target 3 is outside the classes 0 \.\.\. 2"),
        ({"target": [0, 1]}, r"target has shape \(2,\) for 1 images"),
        ({"steps": -1}, "steps must be 0 or more"),
        ({"variant": "best"}, "no variant 'best'; with 0 steps there are pltx"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line(arguments, message, trained):
    arguments = {"images": torch.rand(1, 3, *SIZE)} | arguments
    with pytest.raises(UserError, match=message):
        explain(trained, own(), **arguments)


@pytest.mark.parametrize(
    ("name", "size", "grid"), [("vit_digits", (32, 48), (4, 6)), ("vit_digits", None, (8, 8))]
)
def test_explainer_by_name_at_another_size(name, size, grid, places, digits_weights):
    folder = places / "checkpoints" / "vit_digits"
    folder.mkdir(parents=True)
    (folder / "explainee.safetensors").symlink_to(digits_weights.explainee)
    explainer = Explainer.from_name(name, own(), size)
    assert (explainer.grid, explainer.activation, explainer.is_trained) == (grid, "softmax", False)
    masks = explain(explainer, own(), torch.rand(1, 3, *SIZE), steps=1).token_masks
    assert masks.shape == (1, *grid)
    assert masks.max() == 1


def test_size_that_a_backbone_cannot_take_is_one_line(places, digits_weights):
    folder = places / "checkpoints" / "vit_digits"
    folder.mkdir(parents=True)
    (folder / "explainee.safetensors").symlink_to(digits_weights.explainee)
    with pytest.raises(UserError, match=r"'vit_digits' cannot take images of 4 x 4"):
        Explainer.from_name("vit_digits", own(), (4, 4))


def test_explainer_of_the_users_own_timm_model_starts_from_its_weights(make_backbone):
    model = make_backbone("cnn")
    explainee = Explainee.from_module(model, MEAN, STD, (32, 32), name="my_net")
    explainer = Explainer.from_name("my_net", explainee)
    assert torch.equal(explainer.backbone.conv1.weight, model.conv1.weight)
    assert explainer.backbone is not model
    assert model.fc.weight.shape == (5, model.num_features)


def test_explainer_from_a_checkpoint_alone(tiny_pair, tmp_path):
    explainer = read_explainer(tiny_pair.explainer)
    assert (explainer.name, explainer.is_trained) == ("tiny", True)
    by_file = read_explainer(tiny_pair.explainer / "best.safetensors")
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(by_file(images), explainer(images))
    with pytest.raises(UserError, match="no such weights file"):
        read_explainer(tmp_path / "nothing.safetensors")


# Class-conditional explainers.


@pytest.fixture
def conditional(make_explainee) -> tuple[Explainer, Explainee]:
    """A class-conditional explainer as a checkpoint leaves it, and its explainee."""
    explainee = make_explainee(num_classes=3)
    explainer = Explainer.for_explainee(explainee.name, explainee, class_conditional=True)
    with torch.no_grad():
        for value in explainer.condition.parameters():
            value.add_(0.3 * torch.randn_like(value))
    explainer.metadata = {}
    return explainer, explainee


def test_a_class_conditional_explainer_answers_for_a_class_in_one_pass(conditional):
    images = torch.rand(2, 3, 32, 32)
    first, second = (explain(*conditional, images, target=c) for c in (0, 2))
    assert first.variant == "pltx" and not first.figures
    torch.testing.assert_close(
        first.token_masks, conditional[0](images, torch.zeros(2, dtype=torch.long))[:, 0]
    )
    assert (first.token_masks - second.token_masks).abs().max() > 1e-3
    top = conditional[1](images).argmax(1)
    torch.testing.assert_close(explain(*conditional, images).token_masks, conditional[0](images, top)[:, 0])


def test_ltx_goes_on_from_the_answer(conditional):
    images = torch.rand(3, 3, 32, 32)
    one_pass = explain(*conditional, images, target=[2, 0, 1])
    made = explain(*conditional, images, target=[2, 0, 1], steps=3, lr=1e-2)
    torch.testing.assert_close(made.variants["pltx"], one_pass.token_masks, rtol=0, atol=1e-5)
    assert (made.token_masks - one_pass.token_masks).abs().max() > 1e-3
    alone = [explain(*conditional, images[i][None], t, 3, 1e-2).token_masks for i, t in enumerate([2, 0, 1])]
    torch.testing.assert_close(made.token_masks, torch.cat(alone), rtol=0, atol=1e-5)


def test_class_conditional_mistakes(conditional, make_explainee):
    images = torch.rand(1, 3, 32, 32)
    with pytest.raises(UserError, match=r"target 3 is outside the classes 0 \.\.\. 2"):
        explain(*conditional, images, target=3)
    with pytest.raises(UserError, match="knows 3 classes and 'tiny_vit' has 5"):
        explain(conditional[0], make_explainee(), images, target=1)


def test_class_conditional_for_a_module_with_and_without_a_linear_classifier(make_backbone, monkeypatch):
    monkeypatch.setattr("ltx.models.backbones.load_pretrained", lambda name, **_: make_backbone("cnn"))
    monkeypatch.setattr("ltx.models.explainer.input_spec", lambda model: own().spec)
    for explainee, kind in (
        (own(), "classifier"),
        (Explainee.from_module(LooksAtCorner(), MEAN, STD, SIZE), "learned"),
    ):
        explainer = Explainer.from_name("tiny_cnn", explainee, class_conditional=True)
        assert explainer.condition.kind == kind
        assert explain(explainer, explainee, torch.rand(1, 3, *SIZE), target=2, steps=2).variant == "last"
