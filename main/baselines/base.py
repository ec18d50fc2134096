"""A baseline is a function from images and classes to saliency maps, with a name and a source."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common.names import seed_of
from ltx.main.runs.method import Batch
from ltx.models.explainee import Explainee

# Images that go through the explainee at once inside methods that ask it many times.
FORWARD_BATCH = 64


@dataclass(frozen=True)
class Baseline:
    """A method of `run_baselines.py`.

    Attributes:
        compute: (explainee, batch, options) to maps (B, H, W), larger where more salient, of any scale.
        source: who defined it.
        applies: raises `UserError` where the explainee's architecture does not allow it.
        package: optional package that it needs, as (module, name on PyPI).
    """

    compute: Callable[[Explainee, Batch, BaselineOptions], Tensor]
    source: str
    applies: Callable[[Explainee], Any] = lambda explainee: None
    package: tuple[str, str] | None = None

    def check_package(self, name: str) -> None:
        """Raise `UserError` with the command that installs the package if it is missing."""
        if self.package is not None and find_spec(self.package[0]) is None:
            raise UserError(
                f"--method {name} needs the package {self.package[1]}: run 'pip install {self.package[1]}' "
                "(or 'pip install -r requirements-baselines.txt' for all of them)"
            )


def image_generator(seed: int, name: str) -> torch.Generator:
    """Random numbers that depend on the seed and the image's name alone, whatever the order or the shard."""
    return torch.Generator().manual_seed(seed_of(f"{seed}:{name}") >> 1)
