import dataclasses

import numpy as np
import torch

from ltx.main.baselines.base import Batch
from ltx.main.baselines.simple import centre_gaussian, input_gradient, random_map


def test_input_gradient_of_a_linear_model_is_its_weight(linear_explainee, options):
    weight = torch.randn(4, 3, 6, 5)
    batch = Batch(torch.rand(2, 3, 6, 5), torch.tensor([3, 1]), ["a", "b"])
    expected = weight[batch.classes].abs().amax(1)
    torch.testing.assert_close(input_gradient(linear_explainee(weight), batch, options), expected)


def test_random_maps_depend_on_the_name_and_seed_alone(options):
    images = torch.rand(2, 3, 6, 5)
    both = random_map(None, Batch(images, None, ["a", "b"]), options)
    alone = random_map(None, Batch(images[:1], None, ["b"]), options)
    torch.testing.assert_close(both[1], alone[0], rtol=0, atol=0)
    assert not torch.equal(both[0], both[1])
    other = random_map(None, Batch(images[:1], None, ["b"]), dataclasses.replace(options, seed=7))
    assert not torch.equal(other[0], alone[0])


def test_centre_gaussian_has_its_sigma_at_a_quarter_of_each_side(options):
    maps = centre_gaussian(None, Batch(torch.rand(2, 3, 40, 80), None, ["a", "b"]), options).numpy()
    y, x = np.mgrid[:40, :80] + 0.5
    expected = np.exp(-((y - 20) ** 2) / (2 * 10**2) - (x - 40) ** 2 / (2 * 20**2))
    np.testing.assert_allclose(maps, [expected, expected], rtol=1e-5)
