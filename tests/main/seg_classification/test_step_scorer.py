"""The step scorer against one image and one step at a time, written plainly, over many random maps."""

import math

import pytest
import torch

from ltx.main.seg_classification.step_scorer import STOP_NEG, STOP_POS, StepScorer
from ltx.models.explainee import read_class

N, STEPS, SIDE, CLASSES = 6, 12, 8, 3


def plain_auc(explainee, image, saliency, c, by_pos) -> float:
    """POS (or NEG) of one map by definition."""
    flat = saliency.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda p: (-flat[p] if by_pos else flat[p], p))
    readings = []
    for step in range(10):
        perturbed = image.clone().flatten(1)
        perturbed[:, order[: step * len(flat) // 10]] = 0
        readings.append(int(explainee(perturbed.view(1, *image.shape))[0].argmax().item() == c))
    return 5 * (readings[0] + 2 * sum(readings[1:9]) + readings[9])


def plain_selection(explainee, images, maps, classes, by_pos):
    """Best step and AUC of each image: strictly better, no look after POS < 6 or NEG > 89."""
    best = []
    for i in range(len(images)):
        kept, auc = None, math.inf if by_pos else -math.inf
        for step in range(len(maps)):
            new = plain_auc(explainee, images[i], maps[step][i], classes[i].item(), by_pos)
            if (new < auc) if by_pos else (new > auc):
                kept, auc = step, new
            if (new < 6.0) if by_pos else (new > 89.0):
                break
        best.append((kept, auc))
    return best


def selection(explainee, images, maps, classes, by_pos, **arguments):
    """What `StepScorer` selects, and the AUCs it gives, (steps, N)."""
    scorer = StepScorer(explainee, read_class(explainee, images, classes)[1], by_pos, **arguments)
    rows, best, aucs = torch.arange(len(images)), [None] * len(images), []
    for step, saliency in enumerate(maps):
        better, auc = scorer.score(rows, images, saliency, classes)
        aucs.append(auc)
        for i in better.nonzero()[:, 0].tolist():
            best[i] = (step, auc[i].item())
    return best, torch.stack(aucs), scorer


def drifting_maps(generator):
    """Maps that change a little at every step, quantised so that ties and repeated pixel sets occur."""
    saliency, maps = torch.rand(N, SIDE, SIDE, generator=generator), []
    for step in range(STEPS):
        if step % 4 != 3:
            saliency = (saliency + 0.25 * torch.rand(N, SIDE, SIDE, generator=generator)) / 1.25
        maps.append((saliency * 20).round() / 20)
    return maps


@pytest.fixture
def case(linear_explainee):
    def make(seed):
        generator = torch.Generator().manual_seed(seed)
        explainee = linear_explainee(torch.randn(CLASSES, 3, SIDE, SIDE, generator=generator))
        images = torch.rand(N, 3, SIDE, SIDE, generator=generator)
        classes = explainee(images).argmax(1)
        classes[-1] = (classes[-1] + 1) % CLASSES  # one image whose scored class is not on top
        return explainee, images, drifting_maps(generator), classes

    return make


@pytest.mark.parametrize("by_pos", [True, False])
def test_selection_equals_the_plain_one_with_and_without_shortcuts(case, by_pos):
    different_bests = set()
    for seed in range(12):
        explainee, images, maps, classes = case(seed)
        expected = plain_selection(explainee, images, maps, classes, by_pos)
        for arguments in ({"shortcuts": True}, {"shortcuts": False}, {"batch_size": 5}):
            assert selection(explainee, images, maps, classes, by_pos, **arguments)[0] == expected, seed
        different_bests |= set(expected)
    assert len({step for step, _ in different_bests}) > 3  # the cases do select different steps


@pytest.mark.parametrize("by_pos", [True, False])
def test_every_auc_that_is_given_is_the_plain_one(case, by_pos):
    explainee, images, maps, classes = case(100)
    expected = torch.tensor(
        [
            [plain_auc(explainee, x, m, c.item(), by_pos) for x, m, c in zip(images, s, classes, strict=True)]
            for s in maps
        ]
    )
    for shortcuts in (True, False):
        aucs = selection(explainee, images, maps, classes, by_pos, shortcuts=shortcuts)[1]
        given = ~torch.isnan(aucs)
        assert torch.equal(aucs[given].float(), expected[given].float())
        assert given[0].all()  # the first step always counts
    assert (~torch.isnan(aucs)).float().mean() > 0.5  # without shortcuts only stopped images are left out


def test_shortcuts_ask_the_explainee_less(case):
    explainee, images, maps, classes = case(5)
    asked = []

    def counting(x):
        asked[-1] += len(x)
        return explainee(x)

    for shortcuts in (False, True):
        asked.append(0)
        selection(counting, images, maps, classes, True, shortcuts=shortcuts)
    assert asked[1] < 0.8 * asked[0]


@pytest.mark.parametrize("by_pos", [True, False])
@pytest.mark.parametrize("shortcuts", [True, False])
def test_of_equal_scores_the_earliest_wins(case, by_pos, shortcuts):
    explainee, images, maps, classes = case(1)
    repeated = [maps[0], maps[0], maps[0] * 0.5, maps[0]]
    best, _, _ = selection(explainee, images, repeated, classes, by_pos, shortcuts=shortcuts)
    assert [step for step, _ in best] == [0] * N


@pytest.mark.parametrize("shortcuts", [True, False])
def test_scoring_ends_under_the_pos_limit(linear_explainee, shortcuts):
    """Only pixel 0 counts. Step 0 removes it last, step 1 first (POS 5: the unmasked image), step 2 last."""
    weight = torch.zeros(2, 4, 5)
    weight[0, 0, 0] = 1
    explainee = linear_explainee(weight, torch.tensor([0.0, 0.5]))
    first = torch.linspace(1, 0, 20).view(1, 4, 5)
    maps, target = [1 - first, first, 1 - first], torch.tensor([0])
    best, aucs, scorer = selection(explainee, torch.ones(1, 3, 4, 5), maps, target, True, shortcuts=shortcuts)
    assert best == [(1, 5.0)] and scorer.stopped.tolist() == [True]
    assert aucs[:2, 0].tolist() == [90, 5] and torch.isnan(aucs[2, 0])
    assert (STOP_POS, STOP_NEG) == (6.0, 89.0)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_no_better_step_is_taken_after_the_stop(linear_explainee, shortcuts):
    """Class 1 weighs what is left against 2.5: 20 at first, so class 0 starts wrong.

    The first map leaves two light pixels (2: POS 5, stop), the second a heavy one (6: POS 0, too late).
    """
    weight = torch.zeros(2, 4, 5)
    weight[1] = 1
    weight[1, 0, 0] = 5
    explainee = linear_explainee(weight, torch.tensor([2.5, 0.0]))
    first = torch.linspace(1, 0, 20).view(1, 4, 5)
    image, target = torch.ones(1, 3, 4, 5), torch.tensor([0])
    assert [plain_auc(explainee, image[0], m[0], 0, True) for m in (first, 1 - first)] == [5, 0]
    best = selection(explainee, image, [first, 1 - first], target, True, shortcuts=shortcuts)[0]
    assert best == [(0, 5.0)]


@pytest.mark.parametrize("shortcuts", [True, False])
def test_scoring_ends_over_the_neg_limit(linear_explainee, shortcuts):
    weight = torch.zeros(2, 4, 5)
    weight[0, 0, 0] = 1
    explainee = linear_explainee(weight, torch.tensor([0.0, 0.5]))
    first = torch.linspace(1, 0, 20).view(1, 4, 5)
    maps, target = [1 - first, first, first], torch.tensor([0])
    best, aucs, scorer = selection(
        explainee, torch.ones(1, 3, 4, 5), maps, target, False, shortcuts=shortcuts
    )
    assert best == [(1, 90.0)] and scorer.stopped.tolist() == [True] and torch.isnan(aucs[2, 0])


def test_images_are_independent_and_may_come_in_any_order(case):
    explainee, images, maps, classes = case(7)
    expected = selection(explainee, images, maps, classes, True)[0]
    scorer = StepScorer(explainee, read_class(explainee, images, classes)[1], True)
    best, done = [None] * N, [0] * N
    order = torch.Generator().manual_seed(0)
    while min(done) < STEPS:
        rows = torch.tensor([i for i in torch.randperm(N, generator=order).tolist() if done[i] < STEPS])[:4]
        saliency = torch.stack([maps[done[i]][i] for i in rows.tolist()])
        better, auc = scorer.score(rows, images[rows], saliency, classes[rows])
        for k, i in enumerate(rows.tolist()):
            if better[k]:
                best[i] = (done[i], auc[k].item())
            done[i] += 1
    assert best == expected


def test_an_image_that_is_wrong_from_the_start_can_reach_zero(case):
    explainee, images, maps, classes = case(3)
    rows = torch.arange(N)
    scorer = StepScorer(explainee, torch.zeros(N), True)
    _, aucs = scorer.score(rows, images, maps[0], classes)
    assert (aucs <= 85).all()


# What is asked of the device.


class Asks(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes operations whose result the host must wait for on CUDA."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "item"):
            self.names.add(name)
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("by_pos", [True, False])
def test_without_shortcuts_a_device_is_not_waited_for(make_explainee, by_pos):
    """As on CUDA, where leaving images out would wait; the result is that of leaving them out."""
    explainee, images = make_explainee(), torch.rand(4, 3, 32, 32)
    classes = explainee(images).argmax(1)
    correct, rows = torch.ones(4), torch.arange(4)
    waiting, not_waiting = (StepScorer(explainee, correct, by_pos, shortcuts=False) for _ in range(2))
    not_waiting.leaves_out = False
    with Asks() as asks:
        for step in range(4):
            maps = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(step))
            found = not_waiting.score(rows, images, maps, classes)
    assert not asks.names
    for step in range(4):
        maps = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(step))
        expected = waiting.score(rows, images, maps, classes)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    assert torch.equal(waiting.best, not_waiting.best) and torch.equal(waiting.stopped, not_waiting.stopped)
    with Asks() as asks:
        waiting.score(rows, images, maps, classes)
    assert asks.names == {"nonzero"}  # the mode does notice
