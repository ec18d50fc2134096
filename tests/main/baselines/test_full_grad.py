import pytest
import torch

from ltx.main.baselines.full_grad import full_grad, gradient_parts

KINDS = (
    "vit", "wide", "deit", "registers", "pooled", "resnet", "mobilenet", "convnext", "swin"
)  # fmt: skip


@pytest.mark.parametrize("kind", ["resnet", "mobilenet"])
def test_parts_add_up_to_the_logit(make_tiny, make_batch, kind):
    """Completeness (Srinivas & Fleuret 2019), with plain and with fused batch norms."""
    explainee = make_tiny(kind).double()
    batch = make_batch(explainee.float())
    explainee, images = explainee.double(), batch.images.double()
    gradient, parts = gradient_parts(explainee, images, batch.classes)
    total = gradient.flatten(1).sum(1)
    for part in parts:
        total = total + part.values.flatten(1).sum(1)
    logits = explainee(images).gather(1, batch.classes[:, None])[:, 0]
    torch.testing.assert_close(total, logits)
    assert len(parts) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_maps_for_every_architecture(make_tiny, make_batch, options, kind):
    explainee = make_tiny(kind)
    batch = make_batch(explainee)
    maps = full_grad(explainee, batch, options)
    assert maps.shape == (2, *explainee.input_size) and maps.isfinite().all() and (maps >= 0).all()
    input_term_alone = full_grad_input_term(explainee, batch)
    assert not torch.allclose(maps, input_term_alone), "no layer's biases took part"


def full_grad_input_term(explainee, batch):
    images = batch.images.clone().requires_grad_(True)
    explainee(images).gather(1, batch.classes[:, None]).sum().backward()
    normalised = (batch.images - explainee.mean) / explainee.std
    flat = (normalised * images.grad * explainee.std).abs().flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low)).view_as(images).sum(1)
