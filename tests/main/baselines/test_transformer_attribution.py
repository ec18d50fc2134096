import pytest
import torch

from ltx.config import UserError
from ltx.main.baselines.attention import attention_gradients, forward_with_attention, patch_maps
from ltx.main.baselines.base import Batch
from ltx.main.baselines.transformer_attribution import (
    attention_relevance,
    relevance_forward,
    transformer_attribution,
)

KINDS = ("vit", "wide", "registers", "pooled")


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_the_explainees(make_tiny, make_batch, kind):
    explainee = make_tiny(kind)
    batch = make_batch(explainee)
    logits, matrices = relevance_forward(explainee, batch.images)
    run = forward_with_attention(explainee, batch.images)
    torch.testing.assert_close(logits, run.logits)
    for ours, theirs in zip(matrices, run.matrices, strict=True):
        torch.testing.assert_close(ours, theirs)


def linear_rule(relevance, values, weight):
    """alpha 1, beta 0, one output at a time: positive contributions share an output's relevance."""
    out = torch.zeros_like(values)
    for t in range(values.shape[0]):
        contributions = (values[t][None] * weight).clamp(min=0)
        total = contributions.sum(1, keepdim=True)
        shares = torch.where(total > 0, contributions / total, 0)
        out[t] = (relevance[t][:, None] * shares).sum(0)
    return out


def add_rule(relevance, left, right):
    share = relevance / (left + right)
    a, b = left * share, right * share
    scale = relevance.sum() / (a.sum().abs() + b.sum().abs())
    return a * a.sum().abs() * scale / a.sum(), b * b.sum().abs() * scale / b.sum()


def relevance_by_hand(explainee, image, label):
    """Relevance of the attention of every block, layer by layer from the top, without autograd."""
    model, states = explainee.model, []
    x = model.norm_pre(model._pos_embed(model.patch_embed((image[None] - explainee.mean) / explainee.std)))[0]
    for block in model.blocks:
        n1 = block.norm1(x)
        q, k, v = block.attn.qkv(n1).reshape(len(x), 3, 2, 8).permute(1, 2, 0, 3)
        attention = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
        heads = (attention @ v).transpose(0, 1).reshape(len(x), 16)
        first = x + block.attn.proj(heads)
        n2 = block.norm2(first)
        hidden = block.mlp.act(block.mlp.fc1(n2))
        states.append((block, x, n1, q, k, v, attention, heads, first, n2, hidden))
        x = first + block.mlp.fc2(hidden)
    relevance = torch.zeros_like(x)
    one_hot = torch.zeros(1, 5, dtype=x.dtype)
    one_hot[0, label] = 1
    relevance[:1] = linear_rule(one_hot, model.norm(x)[:1], model.head.weight)
    found = []
    for block, x, n1, q, k, v, attention, heads, first, n2, hidden in reversed(states):
        skip, branch = add_rule(relevance, first, block.mlp.fc2(hidden))
        branch = linear_rule(branch, hidden, block.mlp.fc2.weight)
        relevance = skip + linear_rule(branch, n2, block.mlp.fc1.weight)
        skip, branch = add_rule(relevance, x, block.attn.proj(heads))
        branch = linear_rule(branch, heads, block.attn.proj.weight)
        share = branch.reshape(len(x), 2, 8).transpose(0, 1) / (attention @ v)
        of_attention = attention * (share @ v.transpose(1, 2)) / 2
        of_v = v * (attention.transpose(1, 2) @ share) / 2
        found.insert(0, of_attention)
        share = of_attention / (q @ k.transpose(1, 2))
        of_q, of_k = q * (share @ k) / 2, k * (share.transpose(1, 2) @ q) / 2
        qkv = torch.stack([of_q, of_k, of_v]).permute(2, 0, 1, 3).reshape(len(x), 48)
        relevance = skip + linear_rule(qkv, n1, block.attn.qkv.weight)
    return found


def test_relevance_against_propagation_by_hand(make_tiny, make_batch):
    explainee = make_tiny("vit")
    batch = make_batch(explainee)
    explainee, images = explainee.double(), batch.images.double()
    found = attention_relevance(explainee, Batch(images, batch.classes, batch.names))
    for i in range(2):
        with torch.no_grad():
            expected = relevance_by_hand(explainee, images[i], batch.classes[i])
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[i], theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_map_is_the_rollout_of_gradient_times_relevance(make_tiny, make_batch, options, kind):
    explainee = make_tiny(kind)
    batch = make_batch(explainee)
    gradients = attention_gradients(forward_with_attention(explainee, batch.images), batch.classes)
    relevance = attention_relevance(explainee, batch)
    rollout = torch.eye(gradients[0].shape[-1]).expand(2, -1, -1)
    for g, r in zip(gradients, relevance, strict=True):
        rollout = (torch.eye(g.shape[-1]) + (g * r).clamp(min=0).mean(1)) @ rollout
    found = transformer_attribution(explainee, batch, options)
    torch.testing.assert_close(found, patch_maps(explainee, rollout, batch), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["resnet", "swin", "deit"])
def test_other_architectures_are_refused(make_tiny, make_batch, options, kind):
    explainee = make_tiny(kind)
    with pytest.raises(UserError, match="plain ViTs"):
        transformer_attribution(explainee, make_batch(explainee), options)
