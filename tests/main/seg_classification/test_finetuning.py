"""LTX side by side against one image at a time, plainly with `copy.deepcopy` and `torch.optim.AdamW`."""

import copy
import math

import pytest
import torch

from ltx.datasets.build import stack
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.models.explainee import Explainee
from ltx.models.explainer_files import read_explainer
from ltx.models.losses import Objective
from ltx.models.registry import pair_folder

N_IMAGES, N_STEPS, LR = 6, 5, 3e-3
PAIRS = [("vit", "cnn"), ("cnn", "vit")]
VARIANTS = {"pltx", "last", "best_loss", "best_pos"}


def plain_auc(explainee, image, saliency, c, by_pos):
    order = torch.argsort(-saliency.flatten() if by_pos else saliency.flatten(), stable=True)
    readings = []
    for step in range(10):
        perturbed = image.clone().flatten(1)
        perturbed[:, order[: step * len(order) // 10]] = 0
        with torch.no_grad():
            readings.append(int(explainee(perturbed.view(1, *image.shape)).argmax().item() == c))
    return 5 * (readings[0] + 2 * sum(readings[1:9]) + readings[9])


def plain_ltx(explainer, explainee, image, c, mask_weight, by_pos=True, early_stop=False):
    """The released procedure for one image: masks by variant, losses, AUCs and the selected step."""
    own = copy.deepcopy(explainer)
    optimizer = torch.optim.AdamW(own.trainable().values(), lr=LR, weight_decay=0.01)
    kept, losses, aucs, best_step = {}, [], [], None
    lowest, best, stopped = math.inf, math.inf if by_pos else -math.inf, False
    for step in range(N_STEPS):
        token_mask = own(image[None])
        saliency = torch.nn.functional.interpolate(token_mask, image.shape[-2:], mode="bilinear")
        logits = explainee(image[None] * saliency)
        prediction = logits.logsumexp(1)[0] - logits[0, c]
        loss = prediction + mask_weight * torch.log(1 + token_mask.exp()).mean()
        losses.append(loss.item())
        mask = token_mask.detach()[0, 0].clone()
        if step == 0:
            kept["pltx"] = mask
        kept["last"] = mask
        if loss.item() < lowest:
            lowest, kept["best_loss"] = loss.item(), mask
        if not stopped:
            auc = plain_auc(explainee, image, saliency[0, 0].detach(), c, by_pos)
            aucs.append(auc)
            if (auc < best) if by_pos else (auc > best):
                best, best_step = auc, step
                kept["best_pos" if by_pos else "best_neg"] = mask
            stopped = auc < 6 if by_pos else auc > 89
            if stopped and early_stop:
                break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return kept, losses, aucs, best_step


@pytest.fixture
def case(make_explainee, make_explainer):
    """Explainer, explainee, images and classes of a pair of kinds."""

    def make(explainer_kind="vit", explainee_kind="cnn", n=N_IMAGES):
        size = (64, 64) if "cnn" in explainer_kind else (32, 32)
        explainee = make_explainee(explainee_kind, size=size)
        images = torch.rand(n, 3, *size)
        images *= torch.rand(n, 3, 4, 4).repeat_interleave(size[0] // 4, 2).repeat_interleave(size[1] // 4, 3)
        return (
            make_explainer(explainer_kind, size=size),
            explainee,
            images,
            explainee(images).argmax(1).detach(),
        )

    return make


def settings(**changes):
    return Settings(**({"n_steps": N_STEPS, "lr": LR, "slots": 4} | changes))


@pytest.mark.parametrize("kinds", PAIRS, ids=str)
@pytest.mark.parametrize("by_pos", [True, False])
def test_side_by_side_equals_one_image_at_a_time(case, kinds, by_pos):
    explainer, explainee, images, classes = case(*kinds)
    masks, figures = finetune(
        explainer, explainee, images, classes, classes, Objective(mask_loss_mul=5.0),
        settings(optimize_by_pos=by_pos),
    )  # fmt: skip
    best_name, auc_name = ("best_pos", "pos_auc") if by_pos else ("best_neg", "neg_auc")
    assert set(masks) == {"pltx", "last", "best_loss", best_name}
    for i in range(N_IMAGES):
        kept, losses, aucs, best_step = plain_ltx(explainer, explainee, images[i], classes[i], 5.0, by_pos)
        for name in ("pltx", "last", "best_loss"):
            torch.testing.assert_close(masks[name][i], kept[name], rtol=0, atol=1e-5, msg=f"{name} of {i}")
        assert figures["loss"][i].tolist() == pytest.approx(losses, abs=1e-4)
        assert figures["best_step"][i] == best_step
        torch.testing.assert_close(masks[best_name][i], kept[best_name], rtol=0, atol=1e-5)
        given = figures[auc_name][i][: len(aucs)]
        for found, expected in zip(given.tolist(), aucs, strict=True):
            assert math.isnan(found) or found == expected
        assert torch.isnan(figures[auc_name][i][len(aucs) :]).all()
    assert figures["steps"].tolist() == [N_STEPS] * N_IMAGES
    assert (masks["last"] - masks["pltx"]).abs().max() > 1e-3


@pytest.mark.parametrize("kinds", PAIRS, ids=str)
def test_results_do_not_depend_on_slots_or_order(case, kinds):
    explainer, explainee, images, classes = case(*kinds)
    objective = Objective(mask_loss_mul=5.0)
    first = finetune(explainer, explainee, images, classes, classes, objective, settings(slots=1))
    for slots, order in ((2, [5, 3, 1, 0, 2, 4]), (4, [0, 1, 2, 3, 4, 5]), (16, [3, 2, 1, 0, 5, 4])):
        masks, figures = finetune(
            explainer, explainee, images[order], classes[order], classes[order], objective,
            settings(slots=slots),
        )  # fmt: skip
        for name in VARIANTS:
            torch.testing.assert_close(masks[name], first[0][name][order], rtol=0, atol=1e-5)
        torch.testing.assert_close(figures["loss"], first[1]["loss"][order], rtol=0, atol=1e-4)
        assert torch.equal(figures["best_step"], first[1]["best_step"][order])


@pytest.mark.parametrize("by_pos", [True, False])
def test_early_stop_refills_slots_and_equals_one_at_a_time(case, by_pos):
    """With images that stop at different steps; a slot that stops takes the next image."""
    explainer, explainee, images, classes = case("vit", "cnn", n=8)
    scored = classes.clone()
    scored[::3] = (scored[::3] + 1) % 5  # wrong from the start, so its POS can come under 6 at once
    objective = Objective(mask_loss_mul=5.0)
    name = "best_pos" if by_pos else "best_neg"
    steps_found = set()
    for slots in (1, 4):
        masks, figures = finetune(
            explainer, explainee, images, classes, scored, objective,
            settings(slots=slots, early_stop=True, optimize_by_pos=by_pos),
        )  # fmt: skip
        assert set(masks) == {"pltx", name}
        for i in range(8):
            kept, losses, _, best_step = _plain_scored(
                explainer, explainee, images[i], classes[i], scored[i], by_pos
            )
            torch.testing.assert_close(masks["pltx"][i], kept["pltx"], rtol=0, atol=1e-5)
            torch.testing.assert_close(masks[name][i], kept[name], rtol=0, atol=1e-5)
            assert figures["best_step"][i] == best_step
            assert figures["steps"][i] == len(losses)
            assert torch.isnan(figures["loss"][i][len(losses) :]).all()
        steps_found |= set(figures["steps"].tolist())
    if by_pos:
        assert len(steps_found) > 1  # some stopped, some did not


def _plain_scored(explainer, explainee, image, explained, scored, by_pos):
    """`plain_ltx` with early stop where another class scores than is explained."""

    class Both:
        def __init__(self):
            self.offset = (scored - explained).item()

        def __call__(self, x):
            logits = explainee(x)
            return logits if torch.is_grad_enabled() else logits.roll(-self.offset, 1)

    return plain_ltx(explainer, Both(), image, explained, 5.0, by_pos, early_stop=True)


def test_objective_options_reach_the_finetuning(case):
    """The inverse term and another mask loss change the result, and lower that loss."""
    explainer, explainee, images, classes = case()
    plain = finetune(explainer, explainee, images, classes, classes, Objective(), settings())
    other = Objective("entropy_softmax", 3.0, 2.0, is_ce_neg=True, fill="mean")
    masks, figures = finetune(explainer, explainee, images, classes, classes, other, settings())
    assert (masks["last"] - plain[0]["last"]).abs().max() > 1e-3
    expected = other(explainee, images, explainer(images), classes)["loss"]
    torch.testing.assert_close(figures["loss"][:, 0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kinds", PAIRS, ids=str)
def test_ltx_lowers_the_loss(case, kinds):
    explainer, explainee, images, classes = case(*kinds, n=20)
    masks, figures = finetune(
        explainer, explainee, images, classes, classes, Objective(), settings(n_steps=10, lr=1e-3, slots=20)
    )
    loss = figures["loss"]
    assert (loss[:, -1] < loss[:, 0] - 1).all()  # of about 50, nearly all of it the mask's
    lowest = Objective()(explainee, images, masks["best_loss"][:, None], classes)["loss"]
    torch.testing.assert_close(lowest.detach(), loss.min(1).values, rtol=0, atol=1e-4)


def test_the_next_image_starts_from_the_same_weights(case):
    """The same image thrice through one slot gives the same masks thrice."""
    explainer, explainee, images, classes = case()
    repeated, same = images[[2, 0, 2, 2]], classes[[2, 0, 2, 2]]
    masks, figures = finetune(explainer, explainee, repeated, same, same, Objective(), settings(slots=1))
    for name in VARIANTS:
        assert torch.equal(masks[name][0], masks[name][2]) and torch.equal(masks[name][0], masks[name][3])
    assert torch.equal(figures["loss"][0], figures["loss"][2])


@pytest.mark.parametrize("kinds", PAIRS, ids=str)
def test_explainer_and_explainee_are_as_before(case, kinds):
    explainer, explainee, images, classes = case(*kinds)
    modules = {"explainer": explainer, "explainee": explainee}
    before = {k: {n: v.clone() for n, v in m.state_dict().items()} for k, m in modules.items()}
    finetune(explainer, explainee, images, classes, classes, Objective(), settings())
    for key, module in modules.items():
        assert all(torch.equal(v, before[key][n]) for n, v in module.state_dict().items())
        assert all(parameter.grad is None for parameter in module.parameters())


def test_pltx_is_the_first_mask_of_ltx(case):
    explainer, explainee, images, classes = case()
    masks, _ = finetune(explainer, explainee, images, classes, classes, Objective(), settings(n_steps=1))
    made = pltx(explainer, images, batch_size=4)
    assert set(made) == {"pltx"} and made["pltx"].shape == (N_IMAGES, *explainer.grid)
    for variant in masks.values():
        torch.testing.assert_close(variant, made["pltx"], rtol=0, atol=1e-6)


def test_without_selection_nothing_else_changes(case):
    explainer, explainee, images, classes = case()
    asked = []

    def counting(x):
        asked.append(torch.is_grad_enabled() and len(x))
        return explainee(x)

    whole = finetune(explainer, explainee, images, classes, classes, Objective(), settings())
    masks, figures = finetune(
        explainer, counting, images, classes, classes, Objective(), settings(select=False)
    )
    assert set(masks) == VARIANTS - {"best_pos"} and set(figures) == {"loss", "steps", "not_finite_from"}
    for name, values in masks.items():
        torch.testing.assert_close(values, whole[0][name], rtol=0, atol=1e-6)
    torch.testing.assert_close(figures["loss"], whole[1]["loss"], rtol=0, atol=1e-5)
    assert sum(asked) == N_IMAGES * N_STEPS  # no perturbed image went through


def test_progress_counts_every_image_once(case):
    explainer, explainee, images, classes = case()
    done = []
    finetune(explainer, explainee, images, classes, classes, Objective(), settings(n_steps=2), done.append)
    assert sum(done) == N_IMAGES


def test_order_loss_side_by_side_and_alone():
    """With the shipped digits pair: maps of untrained explainers are nearly flat, all order is rounding."""
    explainee = Explainee.from_name("vit_digits")
    explainer = read_explainer(pair_folder("vit_digits", "vit_digits") / "predicted")
    images = stack(DigitsOnPhotos("tune", image_size=(64, 64)), [3, 1, 4])
    classes = explainee(images).argmax(1)
    objective = Objective("l1", 1.0, order_loss_mul=1.0)
    chosen = settings(n_steps=4, lr=2e-4, select=False)
    together, figures = finetune(explainer, explainee, images, classes, classes, objective, chosen)
    alone = [
        finetune(
            explainer, explainee, images[i : i + 1], classes[i : i + 1], classes[i : i + 1], objective, chosen
        )
        for i in range(3)
    ]
    for name in ("pltx", "last", "best_loss"):
        apart = torch.cat([masks[name] for masks, _ in alone])
        torch.testing.assert_close(together[name], apart, rtol=0, atol=1e-5)
    assert (figures["loss"][:, -1] < figures["loss"][:, 0]).all()
