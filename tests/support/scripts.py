"""The scripts under `main/`: their files, modules and options."""

import dataclasses
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


def arguments(options_class: type, values: dict) -> list[str]:
    """The command line of these options, given by name as they are or as run.json stores them."""
    flags, positional = [], []
    for field in dataclasses.fields(options_class):
        if (value := values.get(field.name)) is None:
            continue
        flag = field.metadata["flag"] or "--" + field.name.replace("_", "-")
        texts = [str(part) for part in (value if isinstance(value, list | tuple) else [value])]
        if not flag.startswith("-"):
            positional += texts
        else:
            flags += [f"{flag}={texts[0]}"] if len(texts) == 1 else [flag, *texts]
    return [*flags, "--", *positional] if positional else flags
