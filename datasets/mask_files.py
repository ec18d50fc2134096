"""Mask files: the HDF5 files through which every method's maps reach the evaluators.

A run folder holds `run.json`, `manifest.csv` and `masks/<first>-<last>.h5`, one file per work unit. A file is
written under a temporary name and renamed, so a file that exists is whole.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from config import UserError
from models.checkpoints import replace_file
from models.masking import min_max, upsample

FORMAT_VERSION = 1
FOLDER = "masks"


@dataclass
class MaskUnit:
    """The maps of one work unit of N images.

    Attributes:
        index: int64 (N,), position of each image in the run's manifest.
        target: int64 (N,), class that each map explains.
        token_masks: by variant, float32 (N, h, w) in [0, 1].
        saliency: by variant, float32 (N, H, W), for methods that are not token-shaped.
        arrays: further arrays with N rows (`label`, `predicted`, `loss`, `pos_auc`, `best_step`, ...).
        attributes: method, explainer, explainee, input size, the run's hash, ...
    """

    index: np.ndarray
    target: np.ndarray
    token_masks: dict[str, np.ndarray] = field(default_factory=dict)
    saliency: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def variants(self) -> list[str]:
        """Names of the maps that are stored for each image."""
        return [*self.token_masks, *self.saliency]

    def maps(self, variant: str, size: tuple[int, int], rows: slice = slice(None)) -> Tensor:
        """Saliency maps (N, H, W) of a variant's rows: token masks upsampled, others as they are stored."""
        if variant in self.token_masks:
            return upsample(torch.from_numpy(self.token_masks[variant][rows])[:, None], size)[:, 0]
        maps = torch.from_numpy(self.saliency[variant][rows])
        if tuple(maps.shape[1:]) != tuple(size):
            raise UserError(f"saliency maps of '{variant}' are {tuple(maps.shape[1:])}, wanted {tuple(size)}")
        return maps

    def shown(self, variant: str, maps: Tensor) -> Tensor:
        """Maps as a mask in [0, 1]: token masks as they are, others scaled to [0, 1] image by image."""
        return maps if variant in self.token_masks else min_max(maps)


def units(n_images: int, unit_size: int) -> list[range]:
    """Work units of a run: consecutive positions, `unit_size` each but for the last."""
    return [range(start, min(start + unit_size, n_images)) for start in range(0, n_images, unit_size)]


def unit_path(folder: Path, unit: range) -> Path:
    """File of a work unit."""
    return Path(folder) / FOLDER / f"{unit.start:06d}-{unit.stop - 1:06d}.h5"


def unit_holding(folder: Path, position: int) -> Path:
    """File of the work unit that a position in the run's manifest belongs to.

    Raises:
        UserError: it has not been made.
    """
    for path in unit_files(folder):
        first, _, last = path.stem.partition("-")
        if int(first) <= position <= int(last):
            return path
    raise UserError(f"{folder} has no mask file of image {position} of its manifest")


def write_unit(path: Path, unit: MaskUnit) -> None:
    """Writes a mask file, whole or not at all.

    It is made in memory: where the disk is full, HDF5 may say nothing, and end the process later.
    """
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["index"], file["target"] = unit.index.astype(np.int64), unit.target.astype(np.int64)
        for group, maps in (("token_mask", unit.token_masks), ("saliency", unit.saliency)):
            for variant, values in maps.items():
                values = values.astype(np.float32)
                file.create_dataset(f"{group}/{variant}", data=values, compression="gzip", compression_opts=1)
        for name, values in unit.arrays.items():
            file[name] = values
        file.attrs.update({"format_version": FORMAT_VERSION, "upsampling": "bilinear, align_corners=False"})
        file.attrs.update(unit.attributes)
    replace_file(path, lambda temporary: Path(temporary).write_bytes(memory.getbuffer()))


def read_unit(path: Path) -> MaskUnit:
    """Reads a mask file.

    Raises:
        UserError: the file is missing, damaged, or no mask file.
    """
    try:
        with h5py.File(path, "r") as file:
            reserved = {"index", "target", "token_mask", "saliency"}
            maps = {
                group: {variant: values[()] for variant, values in file.get(group, {}).items()}
                for group in ("token_mask", "saliency")
            }
            arrays = {name: values[()] for name, values in file.items() if name not in reserved}
            unit = MaskUnit(
                file["index"][()], file["target"][()], maps["token_mask"], maps["saliency"], arrays
            )
            unit.attributes = dict(file.attrs)
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"cannot read mask file {path}: {error}; delete it and make it again") from error
    if not unit.variants or any(len(m) != len(unit.index) for g in maps.values() for m in g.values()):
        raise UserError(
            f"{path} is no mask file: it needs token_mask/<variant> or saliency/<variant> for each index"
        )
    return unit


def read_map(folder: Path, position: int, variant: str, size: tuple[int, int]) -> Tensor:
    """One saliency map (H, W), read without the others of its mask file.

    Args:
        folder: the run folder.
        position: of the image in the run's manifest.
        variant: which of the maps.
        size: (H, W) that token masks are upsampled to.

    Raises:
        UserError: it has not been made, or the file is damaged.
    """
    path = unit_holding(folder, position)
    try:
        with h5py.File(path, "r") as file:
            row = np.flatnonzero(file["index"][()] == position)[:1]
            groups = [name for name in ("token_mask", "saliency") if variant in file.get(name, {})]
            values = file[f"{groups[0]}/{variant}"][row] if groups and row.size else None
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"cannot read mask file {path}: {error}; delete it and make it again") from error
    if values is None:
        raise UserError(f"{path} holds no map '{variant}' of image {position}")
    unit = MaskUnit(row, row, **{groups[0] + ("s" if groups[0] == "token_mask" else ""): {variant: values}})
    return unit.maps(variant, size)[0]


def unit_files(folder: Path) -> list[Path]:
    """The mask files of a run folder, in order.

    Raises:
        UserError: there are none.
    """
    files = sorted((Path(folder) / FOLDER).glob("*.h5"))
    if not files:
        raise UserError(f"{folder} holds no mask files ({FOLDER}/*.h5); has the run made any yet?")
    return files
