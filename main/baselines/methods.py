"""The baselines by name."""

import difflib

from config import UserError
from main.baselines import simple
from main.baselines.base import Baseline

BASELINES = {
    "random": Baseline(simple.random_map, "uniform noise"),
    "input_gradient": Baseline(simple.input_gradient, "Simonyan et al. 2014"),
}


def parse_methods(text: str) -> list[str]:
    """Method names of `NAME[,NAME...]`, each once, in the order given.

    Raises:
        UserError: a name that there is not; the message lists those there are.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in BASELINES:
            near = difflib.get_close_matches(name, BASELINES, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"--method {name}: no such method{hint}; there are {', '.join(BASELINES)}")
    if not names:
        raise UserError(f"--method names no method; there are {', '.join(BASELINES)}")
    return names
