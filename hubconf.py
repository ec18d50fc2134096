"""Entry points of PyTorch Hub.

torch.hub.load(REPOSITORY, "explainee", "efficientnet_lite0", source="local")
torch.hub.load(REPOSITORY, "explainer", "efficientnet_lite0", source="local")
torch.hub.load(REPOSITORY, "explain", explainer, explainee, images, source="local")
"""

import sys
from pathlib import Path
from runpy import run_path

_path = list(sys.path)
run_path(str(Path(__file__).resolve().with_name("__init__.py")))

from ltx.config import ALIASES
from ltx.main import api
from ltx.models.registry import pair_folder

sys.path[:] = _path  # torch.hub takes the repository off the path itself

dependencies = ["torch", "torchvision", "timm", "safetensors"]


def explainee(name: str = "vit_digits", checkpoint: str | None = None) -> api.Explainee:
    """The classifier of an alias or timm name; see `Explainee.from_name`."""
    return api.Explainee.from_name(name, checkpoint)


def explainer(name: str = "vit_digits", kind: str = "predicted") -> api.Explainer:
    """The shipped explainer of an alias, or that of a checkpoint file or folder."""
    return api.read_explainer(pair_folder(name, name) / kind if name in ALIASES else Path(name))


def explain(*arguments, **options) -> api.Explanation:
    """`explain` of the Python interface."""
    return api.explain(*arguments, **options)
