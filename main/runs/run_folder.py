"""The run folder: run.json and the manifest, and the check that a folder belongs to the same run."""

import dataclasses
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ltx import config
from ltx.config import RELEASED, UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.manifest import FIELDS, read_names
from ltx.main.common.recipes import usual_values
from ltx.main.runs.files import read_json, write_json, write_rows
from ltx.main.runs.locks import claimed
from ltx.main.runs.run_record import MaskRunRecord, RunRecord, check, required
from ltx.models.losses import Objective

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "h5py", "pillow")

_OPENING = 2**40  # number of the lock on run.json, beyond those of all mask files


def resolved_options(options, only_identity: bool = False) -> dict[str, Any]:
    """Return the options as JSON values; `only_identity` leaves out those that do not change results."""
    return {
        field.name: _plain(getattr(options, field.name))
        for field in dataclasses.fields(options)
        if not (only_identity and field.metadata["free"])
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect numbers, and the git commit."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"commit": git_commit()}


def git_commit() -> str:
    """Return the commit of this checkout, with "+" if files differ from it; "unknown" outside git."""
    try:
        run: dict[str, Any] = {
            "cwd": config.ROOT,
            "capture_output": True,
            "text": True,
            "timeout": 10,
            "check": True,
        }
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], **run
        ).stdout.strip()
        return commit + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


class OtherRunError(UserError):
    """A folder holds a run of another configuration."""


def open_run(
    folder: Path, options, identity: dict[str, Any], record: dict[str, Any] | None = None
) -> RunRecord:
    """Start a run folder, or resume it.

    Args:
        folder: the run folder.
        options: the script's options; those not marked free are part of the identity.
        identity: what else makes this run what it is (weights, manifest, data set).
        record: further content of run.json that may differ when the run is resumed.

    Returns:
        The content of run.json.

    Raises:
        OtherRunError: the folder holds a run of another configuration; the message names the difference.
    """
    identity = _plain({"options": resolved_options(options, only_identity=True)} | identity)
    path = Path(folder) / "run.json"
    if not path.is_file():
        # Of processes that start at the same time, one writes it and the others compare.
        with claimed(folder, [_OPENING], "run.json", wait=True):
            if not path.is_file():
                write_json(path, _new_run(options, identity, record or {}))
    existing = read_run(folder)
    identity = _as_known_to(existing, identity, options)
    if existing.hash != _digest(identity):
        difference = "; ".join(_differences(existing.identity, identity)) or "unknown"
        raise OtherRunError(
            f"{folder} holds a run of another configuration ({difference}); choose another --run-name, "
            "or delete the folder"
        )
    return existing


def _new_run(options, identity: dict, record: dict[str, Any]) -> dict:
    """Return the content of run.json of a new run."""
    run = {"hash": _digest(identity), "identity": identity, **_plain(record)}
    run |= {
        "options": resolved_options(options),
        "command": [config.portable_path(Path(part)) if part.endswith(".py") else part for part in sys.argv],
    }
    return run | {"versions": versions(), "created": datetime.now(UTC).isoformat(timespec="seconds")}


def _digest(identity: dict) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _as_known_to(run: RunRecord, identity: dict, options) -> dict:
    """Return the identity as the version that began a run would have written it.

    Options that it did not have are left out at their defaults, and those that are gone are as they were.
    Null is the default, or what the recorded plan says: both were filled in later.
    """
    known = run.identity.get("options", identity["options"])
    fields = dataclasses.fields(options)
    usual = {field.name: _plain(field.default) for field in fields} | _usual_values(options)
    kept = {name: value for name, value in known.items() if name not in {field.name for field in fields}}
    for name, value in identity["options"].items():
        same = _number(known.get(name)) == _number(value)
        if usual[name] is not None and None in (known.get(name), value):
            same = usual[name] in (known.get(name), value)
        if name in known and (same or (value is None and "plan" in identity)):
            kept[name] = known[name]
        elif name in known or value not in (None, usual[name]):
            kept[name] = value
    return identity | {"options": kept}


def _usual_values(options) -> dict[str, Any]:
    """Return the released values of options whose default is None."""
    if not hasattr(options, "stage"):
        return {}
    explainee = options.explainee_model_name
    names = options.explainer_model_name or explainee, explainee
    return Objective().as_options() | usual_values(options.stage, RELEASED, {}, *names)


def _number(value: Any) -> Any:
    """Return a text that is a number as the number: rates were text once."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def read_run(folder: Path) -> RunRecord:
    """Return run.json of a run folder.

    Raises:
        UserError: it is missing or damaged.
    """
    return RunRecord.of(Path(folder) / "run.json", _content(folder))


def _content(folder: Path) -> Any:
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no run.json")
    return read_json(path)


def read_mask_run(folder: Path) -> MaskRunRecord:
    """Return run.json of a run that makes masks.

    Raises:
        UserError: it is missing, damaged, of another kind of run, or does not fit the manifest.
    """
    content, path = _content(folder), Path(folder) / "run.json"
    check(path, content, dict)
    missing = sorted(required(MaskRunRecord) - required(RunRecord) - content.keys())
    if missing:
        raise UserError(f"{folder} is no run that makes masks: run.json has no {', '.join(missing)}")
    run = MaskRunRecord.of(path, content)
    sizes = {"n_images": [run.n_images], "input_size": run.input_size}
    sizes |= {} if run.unit_size is None else {"unit_size": [run.unit_size]}
    for key, size in sizes.items():
        if len(size) != (2 if key == "input_size" else 1) or min(size) < 1:
            raise UserError(f"{path} is damaged: '{key}' is {run[key]}")
    n_names = len(read_names(Path(folder) / "manifest.csv"))
    if n_names != run.n_images:
        raise UserError(
            f"{folder}/manifest.csv lists {n_names} images, run.json says {run.n_images}; one of them is "
            "damaged"
        )
    return run


def check_same_run(found: str | None, wanted: str, path: Path) -> None:
    """Raise `UserError` if a file carries the hash of a run other than that of run.json."""
    if found is not None and str(found) != wanted:
        raise UserError(
            f"{path} belongs to a run of another configuration (its hash is {str(found)[:12]}, that of "
            f"run.json {wanted[:12]}); remove it and make it again"
        )


def _differences(before: dict, now: dict, prefix: str = "") -> list[str]:
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, "" if key == "options" else f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} was {old}, now {new}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return config.portable_path(value) if isinstance(value, Path) else value


def write_manifest(path: Path, images: ImageSet, chosen: Iterable[int]) -> None:
    """Write `index,image,label`: position in the run, name in the set, class (-1: none)."""
    write_rows(path, FIELDS, ((i, images.names[j], images.labels[j]) for i, j in enumerate(chosen)))
