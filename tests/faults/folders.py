"""Run folders as the fault tests read them: their content, their unfinished files, and what was rewritten."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

import h5py
import numpy as np
import torch

from ltx.main.runs.locks import LOCK_FILE
from ltx.models.checkpoints import load_safetensors, load_state

# What differs between two runs of one command, by file name; every other key and column must be equal.
_OWN = {"run.json": ("command", "created", "options", "versions"), "epochs.csv": ("seconds",)}
Stamp = tuple[int, int, int]


def contents(folder: Path) -> dict[str, Any]:
    """Everything in a run folder by relative path, read and as plain values; arrays as their bytes."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in files(folder)
        if path.name != LOCK_FILE and not is_temporary(path)
    }


def differences(folder: Path, expected: dict[str, Any]) -> list[str]:
    """Files of a folder that are missing, too many, unreadable or not equal to what is expected."""
    try:
        found = contents(folder)
    except Exception as error:  # whatever a damaged file raises
        return [f"unreadable: {error}"]
    return [
        f"{name} {'differs' if name in found and name in expected else 'is missing or too many'}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder, as far as they stay there while it is read."""
    for root, _, names in os.walk(folder):
        yield from (Path(root) / name for name in names)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that is being written, or was when its process was killed."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def stamps(folder: Path, patterns: tuple[str, ...]) -> dict[str, Stamp]:
    """Identity of the finished files of work units; a file that is written again gets another one."""
    found = {}
    for pattern in patterns:
        for path in folder.glob(pattern):
            try:
                status = path.stat()
            except FileNotFoundError:  # removed meanwhile
                continue
            if not is_temporary(path):
                found[str(path.relative_to(folder))] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            arrays: dict[str, Any] = {}
            file.visititems(
                lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "dtype") else 0
            )
            return _plain({"arrays": arrays, "attributes": dict(file.attrs)})
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return _plain(dict(file))
    if path.suffix == ".safetensors":
        return _plain(load_safetensors(path))
    if path.suffix == ".pt":
        state = load_state(path)
        for row in [state, *state.get("rows", [])]:
            row.pop("seconds", None)
        return _plain(state)
    own = _OWN.get(path.name, ())
    if path.suffix == ".json":
        return {key: value for key, value in json.loads(path.read_text()).items() if key not in own}
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return [{k: v for k, v in row.items() if k not in own} for row in csv.DictReader(file)]
    return path.read_bytes()


def _plain(value: Any) -> Any:
    """Values that `==` compares; arrays as type, shape and bytes, so that NaN equals NaN."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value)
        return str(value.dtype), value.shape, value.tolist() if value.dtype == object else value.tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
