"""Whether a JSON file that was read again holds what its reader needs."""

from pathlib import Path
from typing import Any

from ltx.config import UserError

NUMBER = int | float

# run.json of any run, and of one that made masks. A key that ends in "?" may be missing, "*" is every key, a
# list holds any number of its one element, and a type stands for itself.
RUN = {
    "hash": str,
    "identity": dict,
    "options": dict,
    "command?": [str],
    "versions?": {"*": str},
    "created?": str,
}
MASK_RUN = RUN | {
    "dataset": {
        "kind": str,
        "root?": str | None,
        "labels?": str | None,
        "split?": str | None,
        "names?": [str],
    },
    "explainee": {"name": str, "checkpoint?": str | None, "sha256": str},
    "score_class": str,
    "n_images": int,
    "unit_size?": int,
    "input_size": [int],
    "candidates?": {"*": int},
    "explainer?": dict | None,
    "method?": str,
    "methods?": dict,
    "skipped?": list | dict | None,
}
SUMMARY = {
    "protocol": str,
    "settings": {"fill?": str, "class?": str, "score_class?": str, "*": str | NUMBER | bool | None},
    "run_hash": str,
    "rows": {"*": {"*": {"mean": NUMBER | None, "n": int, "higher_is_better": bool | None}}},
}
EVALUATION = {"run_hash": str, "options": dict}


def check_shape(path: Path, value: Any, shape: Any, again: str = "", where: str = "") -> None:
    """Raises `UserError` where a value from a JSON file is not of a shape.

    Args:
        path: the file, for the message.
        value: what was read.
        shape: what is wanted, as `RUN` is written.
        again: what to do, for the message.
        where: keys that led to `value`.
    """
    at = f"'{where}'" if where else "it"
    if isinstance(shape, dict):
        _check_type(path, value, dict, at, again)
        for key, part in shape.items():
            name = key.removesuffix("?")
            if key == "*":
                for found, inner in value.items():
                    check_shape(path, inner, part, again, f"{where}.{found}".lstrip("."))
            elif name in value:
                check_shape(path, value[name], part, again, f"{where}.{name}".lstrip("."))
            elif name == key:
                inside = f" in {at}" if where else ""
                raise UserError(f"{path} has no '{name}'{inside}{again and f'; {again}'}")
    elif isinstance(shape, list):
        _check_type(path, value, list, at, again)
        for number, inner in enumerate(value):
            check_shape(path, inner, shape[0], again, f"{where}.{number}")
    else:
        _check_type(path, value, shape, at, again)


def _check_type(path: Path, value: Any, kind: Any, at: str, again: str) -> None:
    kinds = getattr(kind, "__args__", (kind,))
    # True is an int to Python, and NaN a number.
    fits = bool in kinds if isinstance(value, bool) else isinstance(value, kinds) and value == value
    if not fits:
        raise UserError(f"{path} is damaged: {at} is {value!r:.60}{again and f'; {again}'}")
