import torch

from ltx.main.baselines.base import Batch
from ltx.main.baselines.rise import random_masks, rise


def test_masks_are_soft_half_on_and_repeatable():
    masks = torch.cat(list(random_masks(200, 7, (40, 56), seed=1)))
    assert masks.shape == (200, 40, 56) and masks.min() >= 0 and masks.max() <= 1 + 1e-6
    assert 0.45 < masks.mean() < 0.55
    assert ((masks > 0.05) & (masks < 0.95)).float().mean() > 0.2
    torch.testing.assert_close(masks, torch.cat(list(random_masks(200, 7, (40, 56), seed=1))))
    assert not torch.equal(masks, torch.cat(list(random_masks(200, 7, (40, 56), seed=2))))


def test_against_the_formula(make_tiny, make_batch, options):
    """Sum of p(masked) * mask over N p1, one mask at a time; removed pixels are the mean colour."""
    explainee = make_tiny("vit")
    batch = make_batch(explainee)
    found = rise(explainee, batch, options)
    masks = torch.cat(list(random_masks(options.rise_masks, options.rise_grid, (32, 32), options.seed)))
    for i, image in enumerate(batch.images):
        total = torch.zeros(32, 32)
        for mask in masks:
            shown = explainee.mean + (image - explainee.mean) * mask
            with torch.no_grad():
                p = explainee(shown).softmax(1)[0, batch.classes[i]]
            total += p * mask
        torch.testing.assert_close(found[i], total / (0.5 * len(masks)), rtol=1e-4, atol=1e-5)


def test_finds_the_pixels_that_decide(linear_explainee, options):
    weight = torch.zeros(2, 32, 32)
    weight[0, :8, :8] = 0.02
    explainee = linear_explainee(weight)
    explainee.mean, explainee.std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    explainee.model = explainee.forward
    options = type(options)(method="", rise_masks=500, rise_grid=4)
    maps = rise(explainee, Batch(torch.ones(1, 3, 32, 32), torch.tensor([0]), ["a"]), options)[0]
    assert maps[:8, :8].mean() > maps[12:, 12:].mean() * 1.05


def test_independent_labels_weight_masks_by_the_sigmoid(linear_explainee, options):
    """Of one logit the softmax is 1 everywhere, and of two equal ones 1/2."""
    weight = torch.zeros(1, 32, 32)
    weight[0, :8, :8] = 0.02
    explainee = linear_explainee(weight)
    explainee.mean, explainee.multi_label = torch.zeros(1, 3, 1, 1), True
    options = type(options)(method="", rise_masks=50, rise_grid=4)
    found = rise(explainee, Batch(torch.ones(1, 3, 32, 32), torch.tensor([0]), ["a"]), options)[0]
    masks = torch.cat(list(random_masks(50, 4, (32, 32), options.seed)))
    probability = explainee(masks[:, None].expand(-1, 3, -1, -1)).sigmoid()[:, 0]
    torch.testing.assert_close(found, torch.einsum("n,nhw->hw", probability, masks) / (0.5 * 50))
    assert 0.5 <= probability.min() < probability.max() < 1
