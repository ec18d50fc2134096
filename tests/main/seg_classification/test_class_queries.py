"""Training of class-conditional explainers: what is asked, and the loss of the answers."""

import pytest
import torch

from ltx.main.seg_classification.class_queries import answer_losses, draw_queries, random_rows
from ltx.models.conditioning import class_rows_of
from ltx.models.losses import Objective


class Fixed:
    """An explainee that gives each image the logits that its first pixels hold."""

    def __init__(self, probability):
        self.logits = torch.tensor(probability).log()

    def __call__(self, images):
        return self.logits[: len(images)]


def draw(probability, known=None, seed=0, threshold=0.1):
    known = None if known is None else torch.tensor(known)
    images = torch.zeros(len(probability), 3, 2, 2)
    return draw_queries(
        Fixed(probability),
        images,
        known,
        random_rows([(seed, i) for i in range(len(images))], len(probability[0])),
        threshold,
    )


def test_predicted_then_runner_up_then_improbable_classes():
    rest = [0.025] * 4
    for seed in range(10):
        asked = draw([[0.02, 0.58, 0.3, *rest], [0.9, 0.0, 0.04, 0.01, 0.02, 0.02, 0.01]], seed=seed)
        assert asked.classes[0, :2].tolist() == [1, 2]
        assert asked.present[0].tolist() == [True, True, False]
        assert asked.classes[1, :2].tolist() == [0, 2], "the runner-up is asked for though it is absent"
        assert asked.present[1].tolist() == [True, False, False]
        assert all(len(set(row.tolist())) == 3 for row in asked.classes)


def test_true_classes_come_first_and_are_present_however_improbable():
    row = [0.88, 0.02, 0.03, 0.02, 0.03, 0.01, 0.005, 0.005]
    asked = draw([row] * 3, known=[[3, -1], [4, 1], [0, -1]])
    assert asked.classes[0, :2].tolist() == [3, 0] and asked.present[0, :2].all()
    assert sorted(asked.classes[1, :2].tolist()) == [1, 4] and asked.present[1, :2].all()
    assert 0 not in asked.classes[1, 2:], "the predicted class is not absent"
    assert asked.classes[2, 0] == 0 and asked.present[2].tolist() == [True, False, False]


def test_every_absent_class_is_drawn_and_the_draw_depends_on_the_numbers_alone():
    row = [[0.5, 0.4] + [0.0125] * 8]
    drawn = {c for seed in range(40) for c in draw(row, seed=seed).classes[0, 2:].tolist()}
    assert drawn == set(range(2, 10))
    assert torch.equal(draw(row, seed=3).classes, draw(row, seed=3).classes)


def test_classes_that_must_be_taken_though_they_are_probable_count_as_present():
    asked = draw([[0.4, 0.35, 0.25]])
    assert asked.classes.tolist() == [[0, 1, 2]] and asked.present.all()


@pytest.mark.parametrize("n", [1, 2])
def test_few_classes(n):
    asked = draw([[1.0] if n == 1 else [0.95, 0.05]])
    assert asked.classes.tolist() == [list(range(n))] and asked.present.tolist() == [[True, False][:n]]


def test_losses_are_the_objective_for_present_classes_and_the_mask_alone_for_absent_ones(
    make_explainee, make_explainer
):
    explainee = make_explainee("cnn")
    explainer = make_explainer("vit", class_rows=class_rows_of(explainee))
    objective, images = Objective("l1", 7.0), torch.rand(2, 3, 32, 32)
    queries = draw_queries(explainee, images, None, random_rows([(0,), (1,)], 5), threshold=0.3)
    assert 0 < queries.present.sum() < queries.present.numel()
    losses = answer_losses(explainer, explainee, objective, images, queries, 0.25)
    for row in range(2):
        found, vanishing = [], []
        for c, present in zip(queries.classes[row], queries.present[row], strict=True):
            mask = explainer(images[row][None], c[None])
            one = objective(explainee, images[row][None], mask, c[None])["loss"]
            (found if present else vanishing).append(one[0] if present else 7.0 * mask.mean())
        expected = torch.stack(found).mean() + 0.25 * torch.stack(vanishing).mean()
        torch.testing.assert_close(losses["loss"][row], expected, rtol=1e-4, atol=1e-5)
    losses["loss"].sum().backward()
    assert explainer.condition.query.weight.grad is not None


class FreeMasks(torch.nn.Module):
    """Stands for an explainer: a mask of its own for each image and class, so that the loss is convex."""

    def __init__(self, n_images, n_classes):
        super().__init__()
        self.tokens = torch.nn.Parameter(torch.full((n_images, n_classes, 4, 4), 0.5))

    def forward(self, images, classes):
        rows = torch.arange(len(images)).repeat_interleave(len(classes) // len(images))
        return self.tokens[rows, classes][:, None]


def test_training_makes_masks_follow_the_class_and_shrinks_those_of_absent_ones(linear_explainee):
    """An explainee whose class c is the brightness of the picture's quadrant c; two quadrants are bright.

    Cross entropy of linear logits is convex in the mask, and both mask losses are linear: projected gradient
    descent ends at the one minimum, whatever the rounding.
    """
    weight, images = torch.zeros(4, 32, 32), torch.zeros(6, 3, 32, 32)
    corners = [(0, 0), (0, 16), (16, 0), (16, 16)]
    for c, (y, x) in enumerate(corners):
        weight[c, y : y + 16, x : x + 16] = 8 / 256
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for image, pair in zip(images, pairs, strict=True):
        for y, x in (corners[c] for c in pair):
            image[:, y : y + 16, x : x + 16] = 1
    explainee, explainer = linear_explainee(weight), FreeMasks(6, 4)
    optimizer = torch.optim.SGD(explainer.parameters(), lr=0.3)
    present = torch.tensor([[c in pair for c in range(4)] for pair in pairs])
    for step in range(300):
        chance = random_rows([(step, i) for i in range(6)], 4)
        queries = draw_queries(explainee, images, None, chance)
        assert torch.equal(queries.present, present.gather(1, queries.classes))
        losses = answer_losses(explainer, explainee, Objective("l1", 0.5), images, queries, 1.0)
        optimizer.zero_grad()
        losses["loss"].sum().backward()
        optimizer.step()
        explainer.tokens.data.clamp_(0, 1)
    masks = explainer.tokens.detach()
    assert (masks[~present] == 0).all()
    quadrants = masks.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5)).flatten(2)
    own = torch.eye(4, dtype=torch.bool).expand(6, 4, 4)[present]
    assert (quadrants[present][own] > 0.6).all() and (quadrants[present][~own] < 0.1).all()
