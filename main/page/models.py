"""The models that the page offers: loaded when first asked for, the last few kept."""

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass

from ltx.config import ALIASES, UserError
from ltx.main.common.cli import shared
from ltx.main.common.devices import pick_device
from ltx.main.explanation.method import PictureMethod, class_names, picture_method
from ltx.main.explanation.options import ExplainOptions
from ltx.main.page.options import AppOptions
from ltx.main.runs.build_models import load_explainee
from ltx.models.explainee import Explainee

_KEPT = 3
# Folders and files are named on the command line only: a visitor chooses none of this machine's.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Loaded:
    """A model that is ready.

    Attributes:
        explainee: the classifier.
        method: explainer, rate and objective.
        names: name of each class.
    """

    explainee: Explainee
    method: PictureMethod
    names: list[str]


class Models:
    """Models by the name that the page shows; several threads may ask.

    Args:
        options: of the command line, whose flags describe the first model alone.

    Attributes:
        first: name of the command line's model.
        offered: names to choose from; timm's may be typed besides.
    """

    def __init__(self, options: AppOptions):
        own = options.explainee_checkpoint
        self.first = options.explainee_model_name + (f" ({own.name})" if own else "")
        self.offered = list(dict.fromkeys([self.first, *ALIASES]))
        self._options = options
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Loaded:
        """Return the model of a name.

        Raises:
            UserError: no such model, or its weights are not here.
        """
        options = self._options_of(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load(options)
            self._loaded.move_to_end(name)
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[name]

    def _options_of(self, name: str) -> ExplainOptions:
        given = self._options
        if name == self.first:
            return ExplainOptions(input=(), **shared(given, ExplainOptions, leave_out=()))
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(
                f"model '{name!s:.60}': type an alias or a timm name; folders are named by the start's flags"
            )
        return ExplainOptions(
            input=(), explainee_model_name=name, device=given.device, download=given.download
        )


def load(options: ExplainOptions) -> Loaded:
    """Load explainee and explainer as `explain.py` does.

    Raises:
        UserError: no such model, or no weights.
    """
    explainee = load_explainee(options).to(pick_device(options.device))
    names = class_names(options, explainee)
    return Loaded(explainee, picture_method(options, explainee, names), names)
