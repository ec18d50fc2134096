"""timm's own pretrained weights: from its cache, and from the network only where that is asked for."""

import logging
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import timm
import torch
from torch import nn

from ltx.config import ALIASES, UserError

log = logging.getLogger(__name__)


def load_from_timm(model: nn.Module, name: str, folder: Path, file_name: str, download: bool) -> None:
    """Load timm's pretrained weights in place: from its cache, else, if asked for, the network.

    Args:
        model: timm model.
        name: its alias or timm name.
        folder: where the user may put the weights, for the message.
        file_name: under which name.
        download: whether the network may be asked.

    Raises:
        UserError: they are not to be had; the message says where to get them.
    """
    cfg = model.pretrained_cfg
    hub_id = cfg.get("hf_hub_id")
    wanted = f"https://huggingface.co/{hub_id} (model.safetensors)" if hub_id else cfg.get("url")
    if not wanted:
        raise UserError(
            f"timm has no pretrained weights for '{name}'; pass a file with --explainee-checkpoint"
        )
    try:
        with hub_offline() if not download else offline_unless_reachable():
            if not (hub_id or download or _is_cached(wanted)):
                raise FileNotFoundError(wanted)
            timm.models.load_pretrained(model, pretrained_cfg=cfg, num_classes=model.num_classes)
    except Exception as error:  # the hub client raises many kinds, all meaning: not to be had
        log.debug("timm could not load '%s': %s", name, error)
        alias = ALIASES.get(name)
        or_published = f", or put a published LTX checkpoint into {folder} (it holds the explainee too)"
        raise UserError(
            f"weights of '{name}' are not in timm's cache"
            f"{' and cannot be downloaded; ' if download else '; add --download True to fetch them, or '}"
            f"get {wanted} and save it as {folder / file_name} (of an explainee also "
            f"--explainee-checkpoint FILE){or_published if alias and alias.published else ''}"
        ) from error


def _is_cached(url: str) -> bool:
    """Return True if timm's cache has the file of a URL."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name).is_file()


@contextmanager
def hub_offline() -> Iterator[None]:
    """Within it, the hub client reads only its cache."""
    import huggingface_hub.constants as constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def offline_unless_reachable() -> AbstractContextManager[None]:
    """`hub_offline` where the hub does not answer within 5 seconds."""
    import huggingface_hub.constants as constants

    hub = urlsplit(constants.ENDPOINT)
    try:
        port = hub.port or (80 if hub.scheme == "http" else 443)
        if not constants.HF_HUB_OFFLINE:
            socket.create_connection((hub.hostname, port), timeout=5).close()
    except OSError:
        return hub_offline()
    return nullcontext()
