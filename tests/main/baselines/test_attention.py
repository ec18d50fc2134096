import pytest
import torch
from torch.nn import functional as F

from ltx.config import UserError
from ltx.main.baselines.attention import (
    attention_gradients,
    attention_rollout,
    forward_with_attention,
    generic_attention,
    legrad,
    raw_attention,
)

KINDS = ("vit", "wide", "deit", "registers", "pooled")
METHODS = (raw_attention, attention_rollout, generic_attention, legrad)


def class_row(kind, relevance):
    """The row that the classifier reads, on the patches, as a map; written down by architecture."""
    n_prefix = {"vit": 1, "wide": 1, "deit": 2, "registers": 5, "pooled": 0}[kind]
    rows = {"deit": relevance[:2].mean(0), "pooled": relevance.mean(0)}.get(kind, relevance[0])
    grid, size = ((4, 6), (32, 48)) if kind == "wide" else ((4, 4), (32, 32))
    small = rows[n_prefix:].reshape(1, 1, *grid)
    return F.interpolate(small, size, mode="bilinear", align_corners=False)[0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_are_the_attention_whether_fused_or_not(make_tiny, make_batch, kind):
    explainee = make_tiny(kind)
    batch = make_batch(explainee)
    attention = explainee.model.blocks[0].attn
    for fused in (True, False):
        for block in explainee.model.blocks:
            block.attn.fused_attn = fused
        run = forward_with_attention(explainee, batch.images)
        assert [block.attn.fused_attn for block in explainee.model.blocks] == [fused] * 3
        torch.testing.assert_close(run.logits, explainee(batch.images))
        assert all(matrix.shape[1] == 2 for matrix in run.matrices) and len(run.matrices) == 3
    inputs = []
    handle = attention.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    explainee(batch.images)
    handle.remove()
    weight, bias = attention.qkv.weight, attention.qkv.bias
    for head in range(2):
        q = inputs[0] @ weight[head * 8 : head * 8 + 8].T + bias[head * 8 : head * 8 + 8]
        k = inputs[0] @ weight[16 + head * 8 : 24 + head * 8].T + bias[16 + head * 8 : 24 + head * 8]
        expected = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
        torch.testing.assert_close(run.matrices[0][:, head], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_methods_against_their_formulas(make_tiny, make_batch, options, kind):
    explainee = make_tiny(kind)
    batch = make_batch(explainee)
    run = forward_with_attention(explainee, batch.images)
    gradients = attention_gradients(run, batch.classes)
    found = {method: method(explainee, batch, options) for method in METHODS[:3]}
    for i in range(2):
        eye = torch.eye(run.matrices[0].shape[-1])
        rollout, generic = eye, eye
        for matrix, gradient in zip(run.matrices, gradients, strict=True):
            mean = matrix[i].detach().mean(0)
            rollout = (0.5 * mean + 0.5 * eye) @ rollout
            generic = generic + (gradient[i] * matrix[i].detach()).clamp(min=0).mean(0) @ generic
        for method, relevance in (
            (raw_attention, mean),
            (attention_rollout, rollout),
            (generic_attention, generic),
        ):
            torch.testing.assert_close(found[method][i], class_row(kind, relevance), rtol=1e-4, atol=1e-6)


def test_gradients_by_finite_differences(make_tiny, make_batch):
    """The class's logit changes with an entry of the attention matrix as its gradient says."""
    explainee = make_tiny("vit")
    batch = make_batch(explainee, 1)
    explainee, images = explainee.double(), batch.images.double()
    gradients = attention_gradients(forward_with_attention(explainee, images), batch.classes)
    for block, head, row, column in ((0, 0, 0, 3), (0, 1, 5, 2), (2, 1, 0, 7)):
        logits = []
        for step in (-1e-4, 1e-4):

            def nudge(module, args, out, step=step, place=(head, row, column)):
                out = out.clone()
                out[(0, *place)] += step
                return out

            attention = explainee.model.blocks[block].attn
            attention.fused_attn = False
            handle = attention.attn_drop.register_forward_hook(nudge)
            with torch.no_grad():
                logits.append(explainee(images)[0, batch.classes[0]])
            handle.remove()
        slope = (logits[1] - logits[0]) / 2e-4
        torch.testing.assert_close(gradients[block][0, head, row, column], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_legrad_against_a_model_cut_after_each_block(make_tiny, make_batch, options, kind):
    """Each block's own logit is that of the model with the later blocks taken out."""
    explainee = make_tiny(kind)
    batch = make_batch(explainee, 1)
    found = legrad(explainee, batch, options)[0]
    blocks, total = explainee.model.blocks, 0
    for depth in range(1, 4):
        explainee.model.blocks = blocks[:depth]
        run = forward_with_attention(explainee, batch.images)
        total = total + attention_gradients(run, batch.classes)[-1][0].clamp(min=0).mean((0, 1))
    explainee.model.blocks = blocks
    grid, size = ((4, 6), (32, 48)) if kind == "wide" else ((4, 4), (32, 32))
    small = total[-grid[0] * grid[1] :].reshape(1, 1, *grid)
    expected = F.interpolate(small, size, mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["resnet", "swin"])
def test_models_without_global_attention_are_refused(make_tiny, make_batch, options, kind):
    explainee = make_tiny(kind)
    with pytest.raises(UserError, match="no global self-attention"):
        raw_attention(explainee, make_batch(explainee), options)
