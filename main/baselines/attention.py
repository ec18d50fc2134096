"""Maps from the attention matrices of models with global self-attention (ViT, DeiT, BEiT, ...).

timm's fused attention never builds the matrices, so it is switched off while they are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ltx.config import UserError
from ltx.main.baselines.base import Batch
from ltx.main.baselines.layers import token_grid
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee


@dataclass
class Forward:
    """One forward pass with its inner values.

    Attributes:
        logits: (B, C).
        matrices: attention after softmax of every block, (B, heads, T, T), prefix tokens first.
        tokens: output of every block, (B, T, D).
    """

    logits: Tensor
    matrices: list[Tensor]
    tokens: list[Tensor]


def raw_attention(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """The last block's attention from the class token to the patches, mean of the heads."""
    run = forward_with_attention(explainee, batch.images)
    return patch_maps(explainee, run.matrices[-1].mean(1), batch)


def attention_rollout(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Product over the blocks of half attention (mean of the heads), half identity (Abnar & Zuidema 2020)."""
    run = forward_with_attention(explainee, batch.images)
    rollout = _identity(run.matrices[0])
    for matrix in run.matrices:
        mixed = matrix.mean(1) + _identity(matrix)
        rollout = mixed / mixed.sum(-1, keepdim=True) @ rollout
    return patch_maps(explainee, rollout, batch)


def generic_attention(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Generic Attention Explainability (Chefer et al. 2021b), for one stream of self-attention.

    R <- R + mean over the heads of max(0, gradient * attention) R, block after block, from the identity.
    """
    run = forward_with_attention(explainee, batch.images)
    relevance = _identity(run.matrices[0])
    for matrix, gradient in zip(run.matrices, attention_gradients(run, batch.classes), strict=True):
        relevance = relevance + (gradient * matrix).clamp(min=0).mean(1) @ relevance
    return patch_maps(explainee, relevance, batch)


def legrad(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """LeGrad (Bousselham et al. 2024): positive gradients of each block's own logit by its attention.

    Each block's tokens go through the model's final norm, pooling and classifier; the gradient of the class's
    logit by that block's attention, negatives cut off, is averaged over heads, query tokens and blocks.
    """
    run = forward_with_attention(explainee, batch.images)
    model, total = explainee.model, 0
    for matrix, tokens in zip(run.matrices, run.tokens, strict=True):
        logits = model.forward_head(model.norm(tokens)).gather(1, batch.classes[:, None]).sum()
        gradient = torch.autograd.grad(logits, matrix, retain_graph=True)[0]
        total = total + gradient.clamp(min=0).mean((1, 2))
    return upsample_tokens(explainee, total, batch)


def check_attention(explainee: Explainee) -> None:
    """Raise `UserError` where a model has no global self-attention in each of its blocks."""
    blocks = getattr(explainee.model, "blocks", None)
    if not blocks or not all(hasattr(getattr(block, "attn", None), "attn_drop") for block in blocks):
        raise UserError(
            f"'{explainee.name}' has no global self-attention, which raw_attention, attention_rollout, "
            "generic_attention and legrad need; they work for ViT, DeiT and the like"
        )


@contextmanager
def _matrices(explainee: Explainee) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Lists that fill with each block's attention matrix and output while the model runs."""
    matrices, tokens, handles, fused = [], [], [], []
    for block in explainee.model.blocks:
        fused.append((block.attn, getattr(block.attn, "fused_attn", None)))
        block.attn.fused_attn = False
        handles.append(
            block.attn.attn_drop.register_forward_hook(lambda module, args, out: matrices.append(out))
        )
        handles.append(block.register_forward_hook(lambda module, args, out: tokens.append(out)))
    try:
        yield matrices, tokens
    finally:
        for handle in handles:
            handle.remove()
        for attention, was in fused:
            if was is None:
                del attention.fused_attn
            else:
                attention.fused_attn = was


def forward_with_attention(explainee: Explainee, images: Tensor) -> Forward:
    """Run the explainee on images (B, 3, H, W) and keep the attention matrices, in the graph.

    Raises:
        UserError: the model has no global self-attention.
    """
    check_attention(explainee)
    with _matrices(explainee) as (matrices, tokens):
        logits = explainee(images.detach().requires_grad_(True))
    shapes = {tuple(matrix.shape[-2:]) for matrix in matrices}
    if len(matrices) != len(explainee.model.blocks) or len(shapes) != 1:
        raise UserError(f"'{explainee.name}' does not attend over all its tokens in each block")
    return Forward(logits, matrices, tokens)


def attention_gradients(run: Forward, classes: Tensor) -> tuple[Tensor, ...]:
    """Gradient of each image's class logit by every attention matrix."""
    return torch.autograd.grad(run.logits.gather(1, classes[:, None]).sum(), run.matrices)


def patch_maps(explainee: Explainee, relevance: Tensor, batch: Batch) -> Tensor:
    """Rows of a relevance matrix (B, T, T) that the classifier reads, as maps (B, H, W).

    The class token's row (with DeiT's distillation token, the mean of the two), or the mean of the patches'
    rows where the classifier pools them.
    """
    model = explainee.model
    n_prefix = getattr(model, "num_prefix_tokens", 0)
    if getattr(model, "global_pool", "token") != "token" or n_prefix == 0:
        rows = relevance[:, n_prefix:].mean(1)
    else:
        rows = relevance[:, : 2 if getattr(model, "head_dist", None) is not None else 1].mean(1)
    return upsample_tokens(explainee, rows, batch)


def upsample_tokens(explainee: Explainee, values: Tensor, batch: Batch) -> Tensor:
    """Values of all tokens (B, T) to maps (B, H, W) of the patch tokens, bilinear."""
    patches = values[:, getattr(explainee.model, "num_prefix_tokens", 0) :].detach()
    grid = token_grid(explainee.model, patches.shape[1], explainee.input_size)
    return F.interpolate(
        patches.unflatten(1, grid)[:, None], batch.images.shape[-2:], mode="bilinear", align_corners=False
    )[:, 0]


def _identity(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], device=matrix.device).expand(len(matrix), -1, -1)
