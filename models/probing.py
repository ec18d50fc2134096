"""Probes of a module before it is explained: the images that it takes, and its gradient."""

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.models.modules import place_of, plain, probes
from ltx.models.outputs import NotLogits, Outputs, recognise, rows_of

_N_PROBES, _LOUD = 4, 30.0
_NO_GRADIENT = (
    "usual causes: forward under torch.no_grad or inference_mode, .detach(), .numpy() or argmax on the way, "
    "rounded or integer values, quantised weights"
)


def settle(explainee, outputs: str) -> None:
    """Find the input that an explainee's model takes and how its outputs read; refuses what has no gradient.

    Args:
        explainee: from a user's module; its `dtype`, `channels_last` and `outputs` are set.
        outputs: see `Explainee.from_module`.

    Raises:
        UserError: the model takes no such images, gives no logits, NaN, or values without gradient.
    """
    device, dtype = place_of(explainee.model)
    explainee.mean, explainee.std = explainee.mean.to(device), explainee.std.to(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        images = _take(explainee, dtype, device)
        try:
            rows = _rows(explainee, images)
        except NotLogits as error:
            if outputs != "any" and isinstance(explainee.output(images), Tensor):
                raise _no_logits(explainee, images, error) from error
            explainee.outputs = None
            return
        check_gradient(explainee, rows, images)
        if outputs == "auto":
            loud = _rows(explainee, _LOUD * (images - 0.5))
            explainee.outputs = recognise(rows, loud, explainee.multi_label)
        else:
            explainee.outputs = Outputs(one=rows.shape[1] == 1)
    if explainee.outputs.one:
        explainee.multi_label = False
    elif explainee.outputs.inside == "sigmoid":
        explainee.multi_label = True


def _no_logits(explainee, images: Tensor, error: NotLogits) -> UserError:
    """Description of a tensor that holds no logits: its shape for one image, where the model takes one."""
    try:
        _rows(explainee, images[:1])
    except NotLogits as of_one:
        error = of_one
    except RuntimeError:
        pass
    return UserError(f"'{explainee.name}' {error}; pass outputs='any' to explain it by a function as target")


def _take(explainee, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Probe images in the first form that the model takes: many or one, its own type, channels last."""
    first: Exception | None = None
    for n in (_N_PROBES, 1):
        images = probes(explainee.spec, n, device).requires_grad_(True)
        for kind in dict.fromkeys((dtype, torch.float32)):
            for channels_last in (True, False):
                explainee.channels_last = channels_last
                explainee.dtype = None if kind == torch.float32 else kind
                try:
                    explainee.output(images)
                    explainee.one_by_one = n == 1
                    return images
                except Exception as error:  # a user's module may raise anything
                    first = error if first is None or (not channels_last and kind == dtype) else first
    raise UserError(
        f"'{explainee.name}' takes no images of size {tuple(explainee.spec.size)} with {explainee.channels} "
        f"channels: {plain(first)}"
    ) from first


def _rows(explainee, images: Tensor) -> Tensor:
    """The model's values for images one by one where it takes no more, (B, C)."""
    return rows_of(explainee.output(images), len(images))


def check_gradient(explainee, rows: Tensor, images: Tensor) -> None:
    """Raise `UserError` where rows (B, C) of images are not finite, or have no gradient by the images."""
    if not rows.isfinite().all():
        raise UserError(f"'{explainee.name}' gives NaN or infinite values for ordinary images")
    if not rows.requires_grad:
        raise UserError(
            f"the output of '{explainee.name}' has no gradient by the image, so nothing can be learned about "
            f"it; {_NO_GRADIENT}"
        )
    # Different weights for the values: those of a softmax add up to a constant.
    weights = torch.linspace(1, 2, rows.shape[1], device=rows.device, dtype=rows.dtype)
    gradient = torch.autograd.grad((rows * weights).sum(), images, allow_unused=True, retain_graph=True)[0]
    if gradient is None or not gradient.any():
        raise UserError(
            f"the output of '{explainee.name}' does not depend on the image: its gradient is zero; "
            f"{_NO_GRADIENT}, or a constant output"
        )
    if not gradient.isfinite().all():
        raise UserError(f"the gradient of '{explainee.name}' by the image is NaN or infinite")
