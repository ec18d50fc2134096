"""Files of a folder of pretraining, and its claim by one launch at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ltx.main.runs.files import write_rows
from ltx.main.runs.locks import claimed
from ltx.models.files import remove_leftovers

STATE_FILE, EPOCHS_FILE = "state.pt", "epochs.csv"


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keep other launches out of the folder, and remove the temporary files of killed ones."""
    with claimed(folder, [0], "the same training"):
        for name in (STATE_FILE, EPOCHS_FILE, "last.*", "best.*", "pictures/*"):
            remove_leftovers(folder / name)
        yield


def write_epochs(folder: Path, rows: list[dict]) -> None:
    """Write one row of figures per epoch to `epochs.csv`."""
    rounded = ([round(v, 6) if isinstance(v, float) else v for v in row.values()] for row in rows)
    write_rows(folder / EPOCHS_FILE, rows[0], rounded)
