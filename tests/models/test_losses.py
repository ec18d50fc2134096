"""The objective against formulas written here in NumPy, in float64."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from ltx.config import FILLS, MASK_LOSSES
from ltx.main.common.options import PairOptions
from ltx.models.losses import Objective, mask_loss, sampled_shares
from ltx.models.masking import apply_mask, upsample

N, CLASSES, SIDE, GRID = 3, 4, 12, (3, 4)


def softplus(t):
    return np.log1p(np.exp(t))


FORMULAS = {
    "bce": lambda t: np.mean(softplus(t)),
    "bce_probability": lambda t: np.mean(-np.log(1 - t)),
    "l1": np.mean,
    "entropy_softmax": lambda t: scipy.stats.entropy(t) / math.log(len(t)),  # which divides by the sum
}


def masks(seed=0):
    return torch.rand(N, 1, *GRID, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def case(linear_explainee):
    """A linear explainee, images, masks and classes, all float64."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(CLASSES, 3, SIDE, SIDE, generator=generator, dtype=torch.float64) / 5
    images = torch.rand(N, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return linear_explainee(weight), images, masks(), torch.tensor([2, 0, 3])


def logits_by_hand(explainee, images, maps):
    return (images * maps).flatten(1).numpy() @ explainee.weight.numpy().T


def cross_entropy_by_hand(logits, classes):
    return np.array(
        [math.log(np.exp(row).sum()) - row[c] for row, c in zip(logits, classes.tolist(), strict=True)]
    )


@pytest.mark.parametrize("kind", MASK_LOSSES)
def test_mask_loss_formula(kind):
    expected = [FORMULAS[kind](t) for t in masks().flatten(1).numpy()]
    np.testing.assert_allclose(mask_loss(masks(), kind).numpy(), expected, rtol=1e-6)


def test_every_mask_loss_is_tested_and_offered():
    choices = PairOptions.__dataclass_fields__["mask_loss"].metadata["choices"]
    assert set(FORMULAS) == set(MASK_LOSSES) == set(choices)


def test_released_bce_is_bce_with_logits_of_the_sigmoided_mask():
    t = masks()
    library = torch.nn.BCEWithLogitsLoss()(t, torch.zeros_like(t))
    assert mask_loss(t, "bce").mean().item() == pytest.approx(library.item(), rel=1e-12)
    ends = mask_loss(torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]), "bce")
    assert ends.tolist() == pytest.approx([math.log(2), math.log(1 + math.e)], rel=1e-6)  # 0.693 and 1.313


def test_true_bce_is_bce_of_the_probability():
    t = masks()
    library = torch.nn.BCELoss()(t, torch.zeros_like(t))
    assert mask_loss(t, "bce_probability").mean().item() == pytest.approx(library.item(), rel=1e-12)
    assert torch.isfinite(mask_loss(torch.ones(1, 1, 2, 2), "bce_probability")).all()


def test_entropy_is_one_for_a_constant_mask_and_less_otherwise():
    assert mask_loss(torch.full((1, 1, 3, 4), 0.3), "entropy_softmax").item() == pytest.approx(1, abs=1e-6)
    assert mask_loss(masks(), "entropy_softmax").max() < 1


def test_entropy_is_that_of_the_mask_and_not_of_its_softmax():
    """Twice the value on one half of the tokens: probabilities 2 / 3n and 4 / 3n."""
    t = torch.cat([torch.full((98,), 0.3), torch.full((98,), 0.6)]).view(1, 1, 14, 14)
    by_hand = (math.log(3 * 98) - 2 / 3 * math.log(2)) / math.log(196)
    assert mask_loss(t, "entropy_softmax").item() == pytest.approx(by_hand, abs=1e-5)


def test_entropy_does_not_depend_on_the_height_of_the_mask():
    t = masks()
    torch.testing.assert_close(
        mask_loss(t, "entropy_softmax"), mask_loss(t / 3, "entropy_softmax"), rtol=1e-6, atol=0
    )


def test_entropy_of_zeros_is_finite_with_its_gradient():
    t = torch.zeros(1, 1, 3, 4, requires_grad=True)
    loss = mask_loss(t, "entropy_softmax")
    loss.sum().backward()
    assert loss.item() == pytest.approx(1) and t.grad.isfinite().all()


@pytest.mark.parametrize("kind", MASK_LOSSES)
def test_mask_loss_is_per_image(kind):
    t = masks()
    one_by_one = torch.cat([mask_loss(t[i : i + 1], kind) for i in range(N)])
    torch.testing.assert_close(mask_loss(t, kind), one_by_one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", MASK_LOSSES)
@pytest.mark.parametrize("logits_only", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_objective_formula(case, kind, logits_only, inverse):
    explainee, images, t, classes = case
    maps = upsample(t, (SIDE, SIDE))

    def prediction(maps):
        logits = logits_by_hand(explainee, images, maps)
        if logits_only:
            return -logits[range(N), classes]
        return cross_entropy_by_hand(logits, classes)

    expected = prediction(maps)
    if inverse:
        expected = (expected - prediction(1 - maps)) / 2
    mask = np.array([FORMULAS[kind](row) for row in t.flatten(1).numpy()])
    found = Objective(kind, 7.0, 0.3, logits_only, inverse)(explainee, images, t, classes)
    np.testing.assert_allclose(found["prediction_loss"].numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(found["mask_loss"].numpy(), mask, rtol=1e-6)
    np.testing.assert_allclose(found["loss"].numpy(), 0.3 * expected + 7 * mask, rtol=1e-6)


@pytest.mark.parametrize("fill", FILLS)
def test_inverse_term_fills_what_each_mask_removes(case, fill):
    explainee, images, t, classes = case
    maps = upsample(t, (SIDE, SIDE))
    parts = [
        cross_entropy_by_hand(explainee(apply_mask(images, m, fill)).numpy(), classes)
        for m in (maps, 1 - maps)
    ]
    found = Objective(is_ce_neg=True, fill=fill)(explainee, images, t, classes)
    np.testing.assert_allclose(
        found["prediction_loss"].numpy(), (parts[0] - parts[1]) / 2, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(("fill", "n"), [*((fill, 2) for fill in FILLS), ("black", 5)])
def test_order_loss_formula(case, fill, n):
    explainee, images, t, classes = case
    found = Objective(
        mask_loss_mul=0.0, fill=fill, order_loss_mul=3.0, order_removal_mul=0.25, order_samples=n
    )(explainee, images, t, classes, step=4)
    maps = upsample(t, (SIDE, SIDE))[:, 0]
    expected = np.zeros(N)
    for share in sampled_shares(torch.tensor([4]), n)[0].tolist():
        for i, row in enumerate(maps.flatten(1).numpy()):
            row = np.log(row / (1 - row))
            level = np.sort(row)[::-1][round(share * SIDE * SIDE)]
            kept = 1 / (1 + np.exp(-(row - level) / (0.2 * row.std())))
            for mask, wanted in ((kept, True), (1 - kept, False)):
                shown = torch.tensor(mask).view(1, 1, SIDE, SIDE)
                logits = explainee(apply_mask(images[i : i + 1], shown, fill))[0].numpy()
                p = np.exp(logits[classes[i]]) / np.exp(logits).sum()
                expected[i] -= (math.log(p) if wanted else 0.25 * math.log(1 - p)) / n
    np.testing.assert_allclose(found["order_loss"].numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(
        found["loss"].numpy(), (found["prediction_loss"] + 3 * expected).numpy(), rtol=1e-6
    )


def test_smoothness_loss_is_the_total_variation(case):
    explainee, images, t, classes = case
    plain = Objective(order_loss_mul=1.0)(explainee, images, t, classes)
    found = Objective(order_loss_mul=1.0, smooth_loss_mul=2.0)(explainee, images, t, classes)
    masks = t.numpy()[:, 0]
    down = np.abs(np.diff(masks, axis=1)).mean((1, 2))
    across = np.abs(np.diff(masks, axis=2)).mean((1, 2))
    np.testing.assert_allclose(found["smooth_loss"].numpy(), down + across, rtol=1e-9)
    np.testing.assert_allclose(found["loss"].numpy(), plain["loss"].numpy() + 2 * (down + across), rtol=1e-9)
    assert "smooth_loss" not in plain


def test_order_loss_of_a_multi_label_explainee_is_that_of_two_classes(case):
    """sigmoid(z) is the softmax over (z, 0)."""
    explainee, images, t, _ = case
    objective = Objective(order_loss_mul=1.0)

    def one_logit(x):
        return explainee(x)[:, :1]

    one_logit.multi_label = True
    zeros = torch.zeros(N, dtype=torch.long)
    found = objective(one_logit, images, t, zeros)["order_loss"]
    two = objective(lambda x: torch.cat([one_logit(x), torch.zeros(len(x), 1)], 1), images, t, zeros)
    torch.testing.assert_close(found, two["order_loss"], rtol=1e-9, atol=0)


def test_without_order_loss_nothing_changes(case):
    losses = Objective()(*case, step=7)
    assert "order_loss" not in losses
    assert all(torch.equal(value, Objective()(*case)[name]) for name, value in losses.items())


def test_objective_of_an_image_does_not_depend_on_its_batch(case):
    explainee, images, t, classes = case
    objective = Objective(is_ce_neg=True, order_loss_mul=1.0)
    together = objective(explainee, images, t, classes)["loss"]
    alone = [objective(explainee, images[i : i + 1], t[i : i + 1], classes[i : i + 1]) for i in range(N)]
    torch.testing.assert_close(together, torch.cat([part["loss"] for part in alone]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", MASK_LOSSES)
def test_gradient_of_the_mask_is_that_of_finite_differences(case, kind):
    explainee, images, t, classes = case
    objective = Objective(kind, 2.0, 1.0, is_ce_neg=True, fill="mean")
    t = t.clamp(0.05, 0.95).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda m: objective(explainee, images, m, classes)["loss"], (t,))


@pytest.mark.parametrize("explainer_kind", ["vit", "cnn"])
@pytest.mark.parametrize("explainee_kind", ["vit", "cnn"])
def test_gradient_reaches_the_explainer_and_not_the_explainee(
    make_explainee, make_explainer, explainer_kind, explainee_kind
):
    explainee, explainer = make_explainee(explainee_kind), make_explainer(explainer_kind)
    before = {name: value.clone() for name, value in explainee.state_dict().items()}
    images = torch.rand(2, 3, 32, 32)
    losses = Objective(is_ce_neg=True)(explainee, images, explainer(images), torch.tensor([0, 1]))
    losses["loss"].mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in explainer.trainable().values())
    frozen = set(dict(explainer.named_parameters())) - set(explainer.trainable())
    assert all(dict(explainer.named_parameters())[name].grad is None for name in frozen)
    assert all(p.grad is None and not p.requires_grad for p in explainee.parameters())
    assert all(torch.equal(value, before[name]) for name, value in explainee.state_dict().items())


def test_prediction_loss_alone_gives_a_gradient_through_the_explainee(make_explainee, make_explainer):
    images, explainer = torch.rand(1, 3, 32, 32), make_explainer()
    loss = Objective(mask_loss_mul=0.0)(make_explainee(), images, explainer(images), torch.tensor([1]))
    loss["loss"].sum().backward()
    assert sum(p.grad.abs().sum() for p in explainer.trainable().values()) > 0
