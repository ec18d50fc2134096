"""LTX from Python, for any classifier.

`Explainee.from_module`, `FreeMask`, `Explainer.from_name` or `read_explainer`, and `explain`; the same behind
the interfaces of captum, pytorch-grad-cam and Quantus.
"""

from ltx.main.interface.attributions import LTXAttribution, quantus_explain
from ltx.main.interface.defaults import (
    FRESH,
    FRESH_HEAD,
    TRAINED,
    Defaults,
    default_steps,
    defaults_of,
)
from ltx.main.interface.explain import Explanation, explain
from ltx.main.interface.search import score
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import read_explainer
from ltx.models.free_mask import FreeMask
from ltx.models.losses import Objective

__all__ = [
    "FRESH", "FRESH_HEAD", "TRAINED", "Defaults", "Explainee", "Explainer", "Explanation", "FreeMask",
    "LTXAttribution", "Objective", "default_steps", "defaults_of", "explain", "quantus_explain",
    "read_explainer", "score",
]  # fmt: skip
