import pytest
import torch

from ltx.main.baselines.base import Batch
from ltx.main.baselines.gradients import integrated_gradients, smoothgrad

pytest.importorskip("captum", reason="the optional package captum is not installed")


def test_on_a_linear_model_they_are_known(linear_explainee, options):
    """The gradient is constant, so SmoothGrad is the gradient and IG is weight times image."""
    weight = torch.randn(4, 3, 6, 5)
    batch = Batch(torch.rand(2, 3, 6, 5), torch.tensor([3, 1]), ["a", "b"])
    explainee = linear_explainee(weight)
    own = weight[batch.classes]
    torch.testing.assert_close(smoothgrad(explainee, batch, options), own.abs().amax(1))
    torch.testing.assert_close(
        integrated_gradients(explainee, batch, options), (own * batch.images).sum(1).abs()
    )


def test_smoothgrad_averages_the_gradient_at_noisy_images(make_tiny, make_batch, options):
    """Against the mean over noise drawn here, which many samples approach."""
    explainee = make_tiny("vit")
    batch = make_batch(explainee, 1)
    options = type(options)(method="", smoothgrad_samples=256, smoothgrad_noise=0.1)
    found = smoothgrad(explainee, batch, options)[0]
    spread = 0.1 * (batch.images.max() - batch.images.min())
    noisy = (batch.images + spread * torch.randn(256, 3, *explainee.input_size)).requires_grad_(True)
    explainee(noisy)[:, batch.classes[0]].sum().backward()
    expected = noisy.grad.mean(0).abs().amax(0)
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.9


def test_smoothgrad_depends_on_the_name_not_on_the_batch(make_tiny, make_batch, options):
    explainee = make_tiny("vit")
    batch = make_batch(explainee, 2)
    both = smoothgrad(explainee, batch, options)
    before = torch.random.get_rng_state()
    alone = smoothgrad(explainee, Batch(batch.images[1:], batch.classes[1:], batch.names[1:]), options)
    torch.testing.assert_close(alone[0], both[1])
    assert torch.equal(torch.random.get_rng_state(), before)
