"""CSV files that label the images of a set."""

import csv
import re
from pathlib import Path

from ltx.config import UserError
from ltx.datasets.base import NO_LABEL


def read_label_rows(path: Path, key: str) -> list[dict[str, str]]:
    """Rows of a CSV with the columns `key` and `label`.

    Raises:
        UserError: no such file, no CSV, no row, or a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such labels file: {path}; pass one with --labels-path")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file: {error}") from error
    if not rows or not {key, "label"} <= rows[0].keys():
        raise UserError(f"{path} needs the columns {key},label and at least one row")
    return rows


def class_index(path: Path, name: str, text: str | None) -> int:
    """A label as an integer, -1 for none.

    Raises:
        UserError: it is none; the message names file and image.
    """
    if not re.fullmatch(f"{NO_LABEL}|[0-9]+", label := (text or "").strip()):
        raise UserError(f"{path}: label '{label}' of {name} is no class index")
    return int(label)
