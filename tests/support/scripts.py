"""The scripts under `main/`: their files, modules and options."""

import importlib
from pathlib import Path
from types import ModuleType

from ltx import config

MAIN = config.ROOT / "main"
FILES = sorted(path for path in MAIN.rglob("*.py") if '__name__ == "__main__"' in path.read_text())
NAMES = [str(path.relative_to(MAIN)) for path in FILES]


def module_of(path: Path) -> ModuleType:
    """The module of a script's file."""
    return importlib.import_module("ltx." + ".".join(path.relative_to(config.ROOT).with_suffix("").parts))


def options_classes() -> list[type]:
    """The dataclass of options of each script."""
    return [module_of(path).main.__annotations__["options"] for path in FILES]
