"""`config.json` as timm writes it beside a fine-tuned model's weights."""

import json
import logging
from pathlib import Path
from typing import Any

from ltx.config import UserError

log = logging.getLogger(__name__)

LOCAL_DIR = "local-dir:"  # timm's own prefix of a folder
CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "model.pth")
_OVERLAY = ("mean", "std", "input_size", "num_classes", "crop_pct", "crop_mode", "interpolation",
            "classifier", "first_conv", "label_names")  # fmt: skip


def folder_of(name: str) -> Path | None:
    """The folder that a name stands for, None where it is an ordinary name.

    Raises:
        UserError: the folder has no configuration of a timm model.
    """
    if not name.startswith(LOCAL_DIR):
        return None
    folder = Path(name.removeprefix(LOCAL_DIR))
    if read_config(folder) is None:
        raise UserError(f"{name}: {folder / CONFIG} is missing or names no timm 'architecture'")
    return folder


def weights_in(folder: Path) -> Path:
    """The weights of such a folder.

    Raises:
        UserError: there are none.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds no weights; looked for {', '.join(_WEIGHTS)}")


def read_config(folder: Path) -> dict[str, Any] | None:
    """Arguments for timm: `architecture`, and `options` of `timm.create_model`; None where there is nothing.

    Raises:
        UserError: `config.json` is damaged.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        return None
    cfg = config.get("pretrained_cfg") or {key: config[key] for key in _OVERLAY if key in config}
    overlay = {key: _tuples(cfg[key]) for key in _OVERLAY if cfg.get(key) is not None}
    names = config.get("label_names") or overlay.get("label_names")
    if names:
        overlay["label_names"] = tuple(names)
    options: dict[str, Any] = {"pretrained_cfg_overlay": overlay, **(config.get("model_args") or {})}
    for key in ("num_classes", "global_pool"):
        if config.get(key) not in (None, ""):
            options[key] = config[key]
    return {"architecture": config["architecture"], "options": options}


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
