"""Reads the maps of run folders for `reasons.py`: any method's, a variant at a time."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ltx.config import UserError
from ltx.datasets.manifest import read_names
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.main.runs.run_folder import read_run


@dataclass(frozen=True)
class Run:
    """A run folder with mask files.

    Attributes:
        folder: where it lies.
        record: its run.json.
    """

    folder: Path
    record: dict[str, Any]

    @cached_property
    def variants(self) -> list[str]:
        """Names of its maps."""
        return read_unit(unit_files(self.folder)[0]).variants

    @cached_property
    def images(self) -> list[str]:
        """Names of the images that have maps, in the order of the mask files."""
        names = read_names(self.folder / "manifest.csv")
        index = np.concatenate([read_unit(file).index for file in unit_files(self.folder)])
        return [names[i] for i in index]

    @cached_property
    def classes(self) -> np.ndarray:
        """Class that is explained in each of them, (N,)."""
        return np.concatenate([read_unit(file).classes for file in unit_files(self.folder)])

    def maps(self, variant: str) -> np.ndarray:
        """Saliency maps (N, H, W) at the explainee's input size."""
        size = tuple(self.record["input_size"])
        return np.concatenate([read_unit(f).maps(variant, size).numpy() for f in unit_files(self.folder)])


def open_runs(folders: list[Path]) -> list[Run]:
    """The runs, in which every method explains the same model, images and classes.

    Raises:
        UserError: a folder that is no such run, or that differs from the first.
    """
    runs = [Run(Path(folder), read_run(folder)) for folder in folders]
    for run in runs:
        if missing := [key for key in ("explainee", "input_size", "options") if key not in run.record]:
            raise UserError(f"{run.folder} is no run that makes masks: run.json has no {', '.join(missing)}")
        same = {
            "the explainee": run.record["explainee"].get("sha256")
            == runs[0].record["explainee"].get("sha256"),
            "the images": run.images == runs[0].images,
            "the classes explained": np.array_equal(run.classes, runs[0].classes),
        }
        if differ := [what for what, equal in same.items() if not equal]:
            raise UserError(
                f"{run.folder} and {runs[0].folder} cannot be compared: {', '.join(differ)} differ"
            )
    return runs


def labelled(runs: list[Run], methods: list[str] | None = None) -> dict[str, tuple[Run, str]]:
    """Run and variant by label: the variant's name, behind its run's where several runs have it.

    Args:
        runs: the runs.
        methods: only these variants.

    Raises:
        UserError: none of the runs has one of them.
    """
    every = [(run, variant) for run in runs for variant in run.variants]
    names = [variant for _, variant in every]
    if unknown := [name for name in methods or [] if name not in names]:
        raise UserError(f"no run has maps named {unknown[0]}; there are {', '.join(dict.fromkeys(names))}")
    return {
        variant if names.count(variant) == 1 else f"{run.folder.name}/{variant}": (run, variant)
        for run, variant in every
        if methods is None or variant in methods
    }
