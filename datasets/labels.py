"""CSV files that label the images of a set."""

import csv
import re
from itertools import zip_longest
from pathlib import Path
from typing import TextIO

from ltx.config import UserError
from ltx.datasets.base import NO_LABEL


def read_label_rows(path: Path, key: str) -> list[dict[str, str]]:
    """Rows of a CSV with the columns `key` and `label`, separated by commas, semicolons or tabs.

    Raises:
        UserError: no such file, no CSV, no row, or a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such labels file: {path}; pass one with --labels-path")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = _rows(file)
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


def _rows(file: TextIO) -> list[dict[str, str]]:
    """Rows by column, spaces around names and values removed; the header decides the separator."""
    header = file.readline()
    file.seek(0)
    separator = max(",;\t", key=header.count)
    reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
    columns = [name.strip() for name in next(reader, [])]
    return [
        {name: value.strip() for name, value in zip_longest(columns, row[: len(columns)], fillvalue="")}
        for row in reader
        if any(row)
    ]
