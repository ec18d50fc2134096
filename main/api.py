"""LTX from Python, for any classifier.

`Explainee.from_module`, `Explainer.from_name` or `read_explainer`, and `explain`; the same behind the
interfaces of captum, pytorch-grad-cam and Quantus.
"""

from ltx.main.interface.attributions import LTXAttribution, quantus_explain
from ltx.main.interface.explain import (
    FRESH,
    TRAINED,
    Defaults,
    Explanation,
    default_steps,
    defaults_of,
    explain,
    score,
)
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import read_explainer
from ltx.models.losses import Objective

__all__ = [
    "FRESH", "TRAINED", "Defaults", "Explainee", "Explainer", "Explanation", "LTXAttribution", "Objective",
    "default_steps", "defaults_of", "explain", "quantus_explain", "read_explainer", "score",
]  # fmt: skip
