"""Fixtures of the fault tests: scripts in real processes, and small pieces of work for each of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

SIZES = {
    "pretraining": ["--train-images", "8", "--val-images", "4", "--batch-size", "4", "--n-epochs", "2",
                    "--save-every", "1"],
    "ltx": ["--max-images", "6", "--unit-size", "2", "--n_epochs_to_optimize_stage_b", "2"],
    "baselines": ["--method", "random,input_gradient", "--max-images", "6", "--unit-size", "2"],
}  # fmt: skip


@pytest.fixture
def argv_of(tiny_pair) -> Callable[..., list]:
    """`argv_of(script, root, *more)`: a small piece of work in a run folder `root/run`, see `folder_of`."""

    def argv(script, root, *more):
        flags = list(tiny_pair.flags)
        if script != "ltx":
            at = flags.index("--explainer-checkpoint")
            del flags[at : at + 2]
        return [*flags, *SIZES[script], "--default-root-dir", root, "--run-name", "run", *more]

    return argv


def folder_of(script: str, root: Path) -> Path:
    """The run folder of `argv_of`."""
    return root / "tiny" / "run" if script == "pretraining" else root / "run"
