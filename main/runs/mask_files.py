"""Mask files: the HDF5 files through which every method's maps reach the evaluators.

A run folder holds `run.json`, `manifest.csv` and `masks/<first>-<last>.h5`, one file per work unit. A file is
written under a temporary name and renamed, so a file that exists is whole.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ltx.config import UserError
from ltx.datasets.pictures import is_within
from ltx.models.files import replace_file
from ltx.models.masking import min_max, upsample

FORMAT_VERSION = 1
FOLDER = "masks"
# Array with the step from which an image's numbers were not finite, -1 where they always were.
NOT_FINITE = "not_finite_from"
_SKIPPED = "skipped"
_RESERVED = {"index", "target", "token_mask", "saliency", _SKIPPED}
# Zeros shrink about a thousandfold in HDF5; a file that claims more than that holds no maps.
_MOST_PER_BYTE = 1100


@dataclass
class MaskUnit:
    """The maps of one work unit of N images.

    Attributes:
        index: int64 (N,), position of each image in the run's manifest.
        classes: int64 (N,), class that each map explains (`target` on disk).
        token_masks: by variant, float32 (N, h, w) in [0, 1].
        saliency: by variant, float32 (N, H, W), for methods that are not token-shaped.
        arrays: further arrays with N rows (`label`, `predicted`, `loss`, `pos_auc`, `best_step`, ...).
        attributes: method, explainer, explainee, input size, the run's hash, ...
        skipped: by position in the manifest, why an image of the work unit has no map here.
    """

    index: np.ndarray
    classes: np.ndarray
    token_masks: dict[str, np.ndarray] = field(default_factory=dict)
    saliency: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)

    @property
    def variants(self) -> list[str]:
        """Names of the maps that are stored for each image."""
        return [*self.token_masks, *self.saliency]

    def maps(self, variant: str, size: tuple[int, int], rows: slice | np.ndarray = slice(None)) -> Tensor:
        """Saliency maps (N, H, W) of a variant's rows: token masks upsampled, others as they are stored."""
        if variant in self.token_masks:
            return upsample(torch.from_numpy(self.token_masks[variant][rows]), size)
        maps = torch.from_numpy(self.saliency[variant][rows])
        if tuple(maps.shape[1:]) != tuple(size):
            raise UserError(f"saliency maps of '{variant}' are {tuple(maps.shape[1:])}, wanted {tuple(size)}")
        return maps

    def without(self, reasons: dict[int, str]) -> "MaskUnit":
        """The unit without some images, which are skipped for the reasons given by position."""
        return self._rows(~np.isin(self.index, list(reasons)), self.skipped | reasons)

    def part(self, positions: range) -> "MaskUnit":
        """The unit of some positions alone."""
        skipped = {position: why for position, why in self.skipped.items() if position in positions}
        return self._rows(np.isin(self.index, positions), skipped)

    def _rows(self, keep: np.ndarray, skipped: dict[int, str]) -> "MaskUnit":
        if keep.all():  # no copy
            return replace(self, skipped=skipped)
        tokens, saliency, arrays = (
            {name: values[keep] for name, values in group.items()}
            for group in (self.token_masks, self.saliency, self.arrays)
        )
        return MaskUnit(
            self.index[keep], self.classes[keep], tokens, saliency, arrays, self.attributes, skipped
        )

    def not_finite(self) -> dict[int, str]:
        """By row, the maps that hold NaN or infinities."""
        found = {}
        for variant in self.variants:
            maps = self.token_masks.get(variant, self.saliency.get(variant))
            for row in np.flatnonzero(~np.isfinite(maps).reshape(len(maps), -1).all(axis=1)).tolist():
                found.setdefault(row, f"its map '{variant}' holds values that are not finite")
        return found

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
    """Write a mask file, whole or not at all.

    It is made in memory: where the disk is full, HDF5 may say nothing, and end the process later.
    """
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["index"], file["target"] = unit.index.astype(np.int64), unit.classes.astype(np.int64)
        for group, maps in (("token_mask", unit.token_masks), ("saliency", unit.saliency)):
            for variant, values in maps.items():
                values = values.astype(np.float32)
                file.create_dataset(f"{group}/{variant}", data=values, compression="gzip", compression_opts=1)
        for name, values in unit.arrays.items():
            file[name] = values
        if unit.skipped:
            file[f"{_SKIPPED}/index"] = np.array(sorted(unit.skipped), dtype=np.int64)
            file[f"{_SKIPPED}/reason"] = [unit.skipped[position] for position in sorted(unit.skipped)]
        file.attrs.update({"format_version": FORMAT_VERSION, "upsampling": "bilinear, align_corners=False"})
        file.attrs.update(unit.attributes)
    replace_file(path, lambda temporary: Path(temporary).write_bytes(memory.getbuffer()))


def read_unit(path: Path) -> MaskUnit:
    """Read a mask file.

    Raises:
        UserError: the file is missing, damaged, or no mask file.
    """
    with _opened(path) as file:
        maps = {
            group: {variant: values[()] for variant, values in file.get(group, {}).items()}
            for group in ("token_mask", "saliency")
        }
        arrays = {name: values[()] for name, values in file.items() if name not in _RESERVED}
        unit = MaskUnit(file["index"][()], file["target"][()], maps["token_mask"], maps["saliency"], arrays)
        unit.attributes = dict(file.attrs)
        unit.skipped = _read_skipped(file)
    if not all(map(is_within, unit.variants)):
        raise UserError(f"{path} holds maps whose name is a path: {', '.join(unit.variants)[:80]}")
    empty = len(unit.index) == 0 and unit.skipped
    if (not unit.variants and not empty) or any(
        len(m) != len(unit.index) for g in maps.values() for m in g.values()
    ):
        raise UserError(
            f"{path} is no mask file: it needs token_mask/<variant> or saliency/<variant> for each index"
        )
    return unit


def read_notes(path: Path) -> tuple[int, dict[int, str], dict[int, int]]:
    """The images of a mask file, without the maps.

    Returns:
        How many have maps; why others have none, by position in the manifest; and the step from which the
        numbers of an image were not finite, by position.

    Raises:
        UserError: the file is damaged.
    """
    with _opened(path) as file:
        index = file["index"][()].astype(int)
        skipped = _read_skipped(file)
        since = file[NOT_FINITE][()].astype(int) if NOT_FINITE in file else np.full(len(index), -1)
    ended = {int(position): int(step) for position, step in zip(index, since, strict=True) if step >= 0}
    return len(index), skipped, ended


def _read_skipped(file: h5py.File) -> dict[int, str]:
    if _SKIPPED not in file:
        return {}
    reasons = file[f"{_SKIPPED}/reason"].asstr()[()]
    return dict(zip(map(int, file[f"{_SKIPPED}/index"][()]), map(str, reasons), strict=True))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A mask file of which nothing leads elsewhere, and which is no larger in memory than it can be.

    Raises:
        UserError: the file is damaged, holds a link, data in another file, or a shape that it cannot hold.
    """
    try:
        with h5py.File(path, "r") as file:
            size = 0
            groups = [file, *(file[name] for name in file if _is_group(file, name))]
            for name, dataset in ((name, group[name]) for group in groups for name in _own(group)):
                if not isinstance(dataset, h5py.Dataset):
                    continue
                if dataset.external or dataset.is_virtual:
                    raise ValueError(f"'{name}' lies in another file")
                size += dataset.size * max(1, dataset.dtype.itemsize)
            if size > _MOST_PER_BYTE * Path(path).stat().st_size:
                raise ValueError(f"it claims to hold {size} bytes, more than a file of its size can")
            yield file
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"cannot read mask file {path}: {error}; delete it and make it again") from error


def _is_group(file: h5py.File, name: str) -> bool:
    return isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Group)


def _own(group: h5py.Group) -> list[str]:
    """Names in a group, none of which may be a soft or an external link."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"'{name}' is a link to elsewhere")
    return list(group)


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
    with _opened(path) as file:
        row = np.flatnonzero(file["index"][()] == position)[:1]
        groups = [name for name in ("token_mask", "saliency") if variant in file.get(name, {})]
        values = file[f"{groups[0]}/{variant}"][row] if groups and row.size else None
    if values is None:
        raise UserError(f"{path} holds no map '{variant}' of image {position}")
    stored = {groups[0]: {variant: values}}
    unit = MaskUnit(row, row, stored.get("token_mask", {}), stored.get("saliency", {}))
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
