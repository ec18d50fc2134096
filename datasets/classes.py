"""Names of classes, and the class that a user means by an index, a WordNet id or a name."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltx.config import UserError
from ltx.datasets.digits import CLASS_NAMES as DIGIT_NAMES
from ltx.datasets.imagenet import class_names, wnid_to_index

_IMAGENET_CLASSES = 1000


def names_of_classes(explainee_name: str, num_classes: int, path: Path | None = None) -> list[str]:
    """Name of each class of an explainee: from a file, of ImageNet-1k, of digits, else "class 0", ...

    Args:
        explainee_name: alias or timm name.
        num_classes: how many it has.
        path: text file with one name a line, or JSON: a list, names by index (`id2label`), indices by name
            (`label2id`), or an object with one of these under `id2label`, `label_names` or `class_names`.

    Raises:
        UserError: the file cannot be read, or has another number of names.
    """
    if path is not None:
        names = _names_from(Path(path))
        if len(names) != num_classes:
            raise UserError(
                f"--class-names {path} has {len(names)} names, '{explainee_name}' {num_classes} classes"
            )
        return names
    if num_classes == _IMAGENET_CLASSES:
        return class_names()
    if explainee_name == "vit_digits" and num_classes == len(DIGIT_NAMES):
        return list(DIGIT_NAMES)
    return [f"class {index}" for index in range(num_classes)]


def _names_from(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return names_in_json(json.loads(text))
        return text.strip("\r\n").splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--class-names {path} cannot be read: {error}") from error


def names_in_json(content: Any) -> list[str]:
    """Class names in order of their indices, in any of the usual JSON layouts.

    Raises:
        ValueError: none of them.
    """
    for key in ("id2label", "label_names", "class_names"):
        if isinstance(content, dict) and key in content:
            return names_in_json(content[key])
    if isinstance(content, dict) and content:
        if all(isinstance(value, int) for value in content.values()):
            content = {index: name for name, index in content.items()}
        by_index = {int(index): name for index, name in content.items()}
        if sorted(by_index) != list(range(len(by_index))):
            raise ValueError(f"its indices are not 0 ... {len(by_index) - 1}")
        content = [by_index[index] for index in range(len(by_index))]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError("it is no list of names, and no names by index")
    return content


def short_name(name: str) -> str:
    """The first of a class's names: "goldfish" of "goldfish, Carassius auratus"."""
    return name.split(",")[0].strip()


def find_class(text: str, names: Sequence[str]) -> int:
    """The class that a user means.

    Args:
        text: an index, a WordNet id (where there are 1,000 classes) or one of a class's names, in any case.
        names: names by class; several of one class are set apart by commas.

    Raises:
        UserError: there is no such class, or there are several; the message names the nearest.
    """
    wanted = " ".join(text.lower().replace("_", " ").split())
    if wanted.removeprefix("-").isdecimal() and text not in names:
        if 0 <= int(wanted) < len(names):
            return int(wanted)
        raise UserError(f"--target-class {text}: the explainee's classes are 0 ... {len(names) - 1}")
    if len(names) == _IMAGENET_CLASSES and wanted in wnid_to_index():
        return wnid_to_index()[wanted]
    synonyms = [[synonym.strip().lower() for synonym in name.split(",")] for name in names]
    first = [index for index, some in enumerate(synonyms) if some[0] == wanted]
    found = first or [index for index, some in enumerate(synonyms) if wanted in some]
    if len(found) == 1:
        return found[0]
    if found:
        which = "; ".join(f"{index}: {names[index]}" for index in found)
        raise UserError(f"--target-class '{text}' is the name of several classes ({which}); pass an index")
    nearest = _nearest(wanted, synonyms) or f"none; pass an index, 0 ... {len(names) - 1}"
    raise UserError(f"--target-class '{text}' is no class; nearest names: {nearest}")


def _nearest(wanted: str, synonyms: list[list[str]]) -> str:
    """Names that hold the text, then those spelt alike, with their indices."""
    index_of = {name: index for index, some in reversed(list(enumerate(synonyms))) for name in some}
    holding = [name for name in index_of if wanted and wanted in name.split()]
    alike = difflib.get_close_matches(wanted, index_of, n=5, cutoff=0.6)
    chosen = list(dict.fromkeys([*holding, *alike]))[:5]
    return ", ".join(f"{name} ({index_of[name]})" for name in chosen)
