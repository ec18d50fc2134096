"""FullGrad (Srinivas & Fleuret 2019): input-gradient and bias-gradients of every layer in one map.

pytorch-grad-cam's FullGrad knows only plain `Conv2d` and `BatchNorm2d` layers, and misses the biases of
most timm models, which fuse batch norm and activation; hence this one.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ltx.main.baselines.base import Batch
from ltx.main.baselines.layers import token_grid
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee


def full_grad(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Sum of psi(input * gradient) and psi(bias * gradient) over layers and channels.

    psi is the absolute value, scaled to [0, 1] per image and layer, then upsampled. With linear layers and
    ReLU alone the unprocessed parts add up to the logit; with softmax or layer norm they need not.
    """
    size = batch.images.shape[-2:]
    gradient, parts = gradient_parts(explainee, batch.images, batch.classes)
    total = _psi(gradient, size)
    for part in parts:
        spatial = _as_maps(part, explainee)
        if spatial is not None:
            total = total + _psi(spatial, size)
    return total


def gradient_parts(
    explainee: Explainee, images: Tensor, classes: Tensor
) -> tuple[Tensor, list["BiasGradient"]]:
    """Normalised input times gradient (B, 3, H, W), and bias times gradient of every layer with a bias."""
    kept, handles = [], []
    for module, bias in _biases(explainee.model):
        # Fused batch norms apply their activation themselves; their bias acts before it, where `drop` stands.
        place = module.drop if isinstance(module, _BatchNorm) and hasattr(module, "drop") else module
        handles.append(place.register_forward_hook(_keeper(kept, module, bias)))
    try:
        normalised = ((images - explainee.mean) / explainee.std).detach().requires_grad_(True)
        logits = explainee.model(normalised).gather(1, classes[:, None]).sum()
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(
        logits, [normalised, *(output for _, _, output in kept)], allow_unused=True
    )
    parts = [
        BiasGradient(module, bias, gradient)
        for (module, bias, _), gradient in zip(kept, gradients[1:], strict=True)
        if gradient is not None
    ]
    return normalised.detach() * gradients[0], parts


class BiasGradient:
    """Bias times gradient of one layer, in the layer's own layout (`values`, channels on axis `axis`)."""

    def __init__(self, module: nn.Module, bias: Tensor, gradient: Tensor):
        first = isinstance(module, _BatchNorm | nn.Conv2d) or gradient.shape[-1] != len(bias)
        self.axis = 1 if first else gradient.dim() - 1
        shape = [1] * gradient.dim()
        shape[self.axis] = -1
        self.values = bias.view(shape) * gradient


def _keeper(kept: list, module: nn.Module, bias: Tensor):
    def hook(_, inputs, output):
        kept.append((module, bias, output))
        # A copy goes on, since activations may work in place.
        return output.clone()

    return hook


def _biases(model: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if isinstance(module, _BatchNorm) and bias is not None and module.running_mean is not None:
            scale = module.weight / torch.sqrt(module.running_var + module.eps)
            yield module, bias - module.running_mean * scale
        elif isinstance(module, nn.Conv2d | nn.Linear | nn.LayerNorm) and bias is not None:
            yield module, bias


def _as_maps(part: BiasGradient, explainee: Explainee) -> Tensor | None:
    """Channels first, (B, C, h, w); None for a layer that has no places (the classifier, windows, ...)."""
    values = part.values.movedim(part.axis, 1)
    if values.dim() == 4:
        return values
    model = explainee.model
    grid_size = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if values.dim() != 3 or grid_size is None:
        return None
    n_patches = grid_size[0] * grid_size[1]
    n_prefix = values.shape[2] - n_patches
    if n_prefix != getattr(model, "num_prefix_tokens", 0):
        return None
    return values[:, :, n_prefix:].unflatten(2, token_grid(model, n_patches, explainee.input_size))


def _psi(values: Tensor, size: tuple[int, int]) -> Tensor:
    flat = values.abs().flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    scaled = ((flat - low) / (high - low).clamp(min=torch.finfo(flat.dtype).tiny)).view_as(values)
    # Upsampling is linear, so the channels are added up first.
    return F.interpolate(scaled.sum(1, keepdim=True), size, mode="bilinear", align_corners=False)[:, 0]
