"""Class activation maps: Grad-CAM, Grad-CAM++, LayerCAM (pytorch-grad-cam), Ablation-CAM (from its paper)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ltx.main.baselines.base import FORWARD_BATCH, Batch
from ltx.main.baselines.layers import CamModel
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee


def grad_cam(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Channels weighted by their mean gradient, negative sums cut off (Selvaraju et al. 2017)."""
    from pytorch_grad_cam import GradCAM

    return _from_library(GradCAM, explainee, batch)


def grad_cam_plus_plus(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Channels weighted by their positive gradients, place by place (Chattopadhyay et al. 2018)."""
    from pytorch_grad_cam import GradCAMPlusPlus

    return _from_library(GradCAMPlusPlus, explainee, batch)


def layer_cam(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Each value weighted by its own positive gradient (Jiang et al. 2021)."""
    from pytorch_grad_cam import LayerCAM

    return _from_library(LayerCAM, explainee, batch)


def _from_library(method: type, explainee: Explainee, batch: Batch) -> Tensor:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = CamModel(explainee)
    cam = method(model, [model.layer], reshape_transform=model.to_map)
    try:
        # The weights are frozen, so the gradient has to come from the input.
        maps = cam(
            batch.images.detach().requires_grad_(True),
            [ClassifierOutputTarget(label) for label in batch.classes.tolist()],
        )
    finally:
        cam.activations_and_grads.release()
    return torch.from_numpy(maps).to(batch.images.device)


@torch.no_grad()
def ablation_cam(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Channels weighted by how much the logit drops without them, (y - y_k) / y (Desai & Ramaswamy 2020).

    An ablated channel is 0, as in the paper (pytorch-grad-cam's is the layer's minimum minus 1e7 where values
    can be negative, which means nothing without a last ReLU). Only the tail of the model is run again.
    """
    model = CamModel(explainee)
    maps = []
    for image, label in zip(batch.images, batch.classes.tolist(), strict=True):
        state = model.prefix(image[None])
        values, logits = _with_ablated(model, state, None)
        maps_of = model.to_map(values)
        n_channels = maps_of.shape[1]
        without = torch.cat(
            [
                _with_ablated(model, state, channels)[1][:, label]
                for channels in torch.arange(n_channels, device=image.device).split(FORWARD_BATCH)
            ]
        )
        weights = (logits[0, label] - without) / logits[0, label]
        maps.append((weights[:, None, None] * maps_of[0]).sum(0).clamp(min=0))
    stacked = torch.stack(maps)[:, None]
    return F.interpolate(stacked, batch.images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _with_ablated(model: CamModel, state: Tensor, channels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values of the layer and logits, a row per ablated channel."""
    axis = 1 if not model.has_tokens and not model.channels_last else -1
    seen = []

    def hook(module, inputs, output):
        if channels is not None:
            output = output.clone().movedim(axis, 1)
            output[torch.arange(len(channels), device=output.device), channels] = 0
            output = output.movedim(1, axis)
        seen.append(output)
        return output

    handle = model.layer.register_forward_hook(hook)
    try:
        n = 1 if channels is None else len(channels)
        logits = model.tail(state.expand(n, *state.shape[1:]))
    finally:
        handle.remove()
    return seen[0], logits
