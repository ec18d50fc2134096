"""Transformer Attribution (Chefer et al. 2021a): relevance of attention times its gradient, rolled out.

The relevance comes from layer-wise propagation with the rules of the paper, written as the backward pass of
autograd functions: what `torch.autograd.grad` returns through them is relevance, not a gradient.
"""

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ltx.config import UserError
from ltx.main.baselines.attention import attention_gradients, forward_with_attention, patch_maps
from ltx.main.baselines.base import Batch
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee


def transformer_attribution(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Product over the blocks of identity + mean over the heads of max(0, gradient * relevance)."""
    check_plain_vit(explainee)
    gradients = attention_gradients(forward_with_attention(explainee, batch.images), batch.classes)
    rollout = torch.eye(gradients[0].shape[-1], device=batch.images.device).expand(len(batch.images), -1, -1)
    for gradient, relevance in zip(gradients, attention_relevance(explainee, batch), strict=True):
        rollout = rollout + (gradient * relevance).clamp(min=0).mean(1) @ rollout
    return patch_maps(explainee, rollout, batch)


def attention_relevance(explainee: Explainee, batch: Batch) -> tuple[Tensor, ...]:
    """Relevance of every attention matrix (B, heads, T, T) for each image's class, which starts with 1."""
    logits, matrices = relevance_forward(explainee, batch.images)
    return torch.autograd.grad(logits.gather(1, batch.classes[:, None]).sum(), matrices)


def check_plain_vit(explainee: Explainee) -> None:
    """Raise `UserError` where the model has parts that the paper's rules do not cover."""
    model = explainee.model
    plain = isinstance(model, VisionTransformer) and getattr(model, "attn_pool", None) is None
    if not plain or getattr(model, "head_dist", None) is not None or not all(map(_is_plain, model.blocks)):
        raise UserError(
            f"transformer_attribution's propagation rules cover plain ViTs, and '{explainee.name}' is none; "
            "generic_attention and legrad go further"
        )


def _is_plain(block: nn.Module) -> bool:
    if type(block) is not Block or type(block.attn) is not Attention:
        return False
    extras = (block.attn.norm, block.attn.q_norm, block.attn.k_norm, block.mlp.norm)
    return all(isinstance(extra, nn.Identity) for extra in extras) and block.attn.gate is None


def relevance_forward(explainee: Explainee, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits (B, C) and attention matrices, in a graph whose backward pass carries relevance."""
    model, matrices = explainee.model, []
    with torch.no_grad():
        normalised = (images - explainee.mean) / explainee.std
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(normalised))))
    tokens = tokens.requires_grad_(True)
    for block in model.blocks:
        attended, matrix = _attention(block.attn, _keep(block.norm1, tokens))
        matrices.append(matrix)
        tokens = _Add.apply(tokens, _keep(block.ls1, attended))
        hidden = _keep(block.mlp.act, _linear(block.mlp.fc1, _keep(block.norm2, tokens)))
        tokens = _Add.apply(tokens, _keep(block.ls2, _linear(block.mlp.fc2, hidden)))
    pooled = _pool(model, _keep(model.norm, tokens))
    return _linear(model.head, _keep(model.fc_norm, pooled)), matrices


def _attention(attention: Attention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    b, t, _ = tokens.shape
    qkv = _linear(attention.qkv, tokens).view(b, t, 3, attention.num_heads, attention.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    scores = _Multiply.apply(q, k.transpose(-2, -1))
    matrix = _keep(lambda values: (values * attention.scale).softmax(-1), scores)
    out = _Multiply.apply(matrix, v).transpose(1, 2).reshape(b, t, attention.attn_dim)
    return _linear(attention.proj, out), matrix


def _pool(model: VisionTransformer, tokens: Tensor) -> Tensor:
    if model.global_pool == "token":
        return tokens[:, 0]
    if model.global_pool != "avg":
        raise UserError(f"transformer_attribution knows no rule for pooling by '{model.global_pool}'")
    return _Mean.apply(tokens if model.pool_include_prefix else tokens[:, model.num_prefix_tokens :])


def _linear(layer: nn.Linear, values: Tensor) -> Tensor:
    if isinstance(layer, nn.Identity):
        return values
    return _Linear.apply(values, layer.weight, layer.bias)


def _keep(function, values: Tensor) -> Tensor:
    """`function(values)`, through which relevance passes as it is (norms, activations, softmax)."""
    return _Keep.apply(values, function)


def _ratio(relevance: Tensor, output: Tensor) -> Tensor:
    """relevance / output, 0 where the output is 0, bounded near it."""
    bounded = output.clamp(min=1e-9) + output.clamp(max=-1e-9)
    return torch.where(output != 0, relevance / torch.where(bounded != 0, bounded, 1e-9), 0.0)


class _Keep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, function):
        return function(values).clone()

    @staticmethod
    def backward(ctx, relevance):
        return relevance, None


class _Linear(torch.autograd.Function):
    """alpha-beta rule with alpha 1, beta 0: relevance follows the positive contributions (bias left out)."""

    @staticmethod
    def forward(ctx, values, weight, bias):
        ctx.save_for_backward(values, weight)
        return F.linear(values, weight, bias)

    @staticmethod
    def backward(ctx, relevance):
        values, weight = ctx.saved_tensors
        total = 0
        parts = [(values.clamp(min=0), weight.clamp(min=0)), (values.clamp(max=0), weight.clamp(max=0))]
        share = _ratio(relevance, sum(F.linear(x, w) for x, w in parts))
        for x, w in parts:
            total = total + x * (share @ w)
        return total, None, None


class _Multiply(torch.autograd.Function):
    """Matrix product: half of the relevance to each factor, in proportion to value times gradient."""

    @staticmethod
    def forward(ctx, left, right):
        product = left @ right
        ctx.save_for_backward(left, right, product)
        return product

    @staticmethod
    def backward(ctx, relevance):
        left, right, product = ctx.saved_tensors
        share = _ratio(relevance, product)
        return left * (share @ right.mT) / 2, right * (left.mT @ share) / 2


class _Add(torch.autograd.Function):
    """Sum of two branches: split in proportion to the values, then scaled to their absolute totals."""

    @staticmethod
    def forward(ctx, left, right):
        ctx.save_for_backward(left, right)
        return left + right

    @staticmethod
    def backward(ctx, relevance):
        share = _ratio(relevance, sum(ctx.saved_tensors))
        parts = [values * share for values in ctx.saved_tensors]
        totals = [part.flatten(1).sum(1) for part in parts]
        weight = sum(total.abs() for total in totals)
        whole = relevance.flatten(1).sum(1)
        shape = (-1,) + (1,) * (relevance.dim() - 1)
        return tuple(
            part * _ratio(_ratio(total.abs(), weight) * whole, total).view(shape)
            for part, total in zip(parts, totals, strict=True)
        )


class _Mean(torch.autograd.Function):
    """Mean over the tokens, relevance in proportion to their values."""

    @staticmethod
    def forward(ctx, tokens):
        ctx.save_for_backward(tokens)
        return tokens.mean(1)

    @staticmethod
    def backward(ctx, relevance):
        (tokens,) = ctx.saved_tensors
        return tokens * _ratio(relevance, tokens.sum(1))[:, None]
