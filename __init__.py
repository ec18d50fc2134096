"""LTX: learning to explain black-box vision models (Barkan et al., ICDM 2023).

    from ltx import Explainee, Explainer, explain

The root of the repository is the package, whatever its folder is called; a script that runs as a file calls
this file first, so that it needs neither installation nor PYTHONPATH.
"""

import sys
from importlib import import_module, util
from pathlib import Path

__all__ = [
    "FRESH", "FRESH_HEAD", "TRAINED", "Defaults", "Explainee", "Explainer", "Explanation", "FreeMask",
    "LTXAttribution", "Objective", "default_steps", "defaults_of", "explain", "quantus_explain",
    "read_explainer", "score",
]  # fmt: skip


def __getattr__(name: str):
    """Names of the interface `main.api`, which is loaded with PyTorch at first use."""
    if name in __all__:
        return getattr(import_module("ltx.main.api"), name)
    raise AttributeError(f"module 'ltx' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _import_as_ltx(root: Path) -> None:
    """Makes the folder `root` the package `ltx`, and takes what lies in it off the import path.

    Python puts a script's own folder first on the path, and the published commands the root: there `datasets`
    and `models` would hide other packages of these names.
    """
    own = (root, *(folder.parent for folder in root.glob("main/**/__init__.py")), root / "tests")
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() not in own]
    loaded = sys.modules.get("ltx")
    if loaded is not None and [Path(entry).resolve() for entry in loaded.__path__] == [root]:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "ltx"]:  # an installed one
        del sys.modules[name]
    spec = util.spec_from_file_location("ltx", root / "__init__.py", submodule_search_locations=[str(root)])
    sys.modules["ltx"] = util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["ltx"])


if __name__ == "<run_path>":
    _import_as_ltx(Path(__file__).resolve().parent)
