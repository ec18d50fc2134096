"""JSON and CSV files of a run, written under a temporary name first."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltx.config import UserError
from ltx.models.files import replace_file


def write_rows(path: Path, header: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write a CSV file, whole or not at all."""

    def write(temporary):
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)

    replace_file(path, write)


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it and repeat the command that wrote it"
        ) from error


def write_json(path: Path, content: dict) -> None:
    """Write JSON under a temporary name first."""
    replace_file(path, lambda temporary: Path(temporary).write_text(json.dumps(content, indent=1) + "\n"))
