"""Saliency maps that another tool wrote: a folder with a `.npy` or `.png` file per image.

Rules. The file of image `a/b.jpg` is `a/b.npy`, `a/b.png`, `a/b.jpg.npy`, `a/b.jpg.png`, `b.npy` or
`b.png`. A map that is not of the input size is resized to it directly, bilinear, as images are, with a
warning. A constant map counts as 0, with a warning. NaN, infinities, colours and all that is not one number
per pixel are refused.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ltx.config import UserError
from ltx.datasets.pictures import MAX_MEGAPIXELS, is_within
from ltx.main.baselines.base import Batch
from ltx.main.baselines.options import BaselineOptions
from ltx.models.explainee import Explainee

log = logging.getLogger(__name__)

METHOD = "import"


def variant_name(options: BaselineOptions) -> str:
    """Name of imported maps in the mask files: `--maps-name`, else the folder's name."""
    if options.maps_path is None:
        raise UserError("--method import needs the folder of maps: pass it with --maps-path")
    name = options.maps_name or Path(options.maps_path).resolve().name
    return "".join(c if c.isalnum() else "_" for c in name).strip("_").lower() or METHOD


def check_maps(options: BaselineOptions, names: Sequence[str]) -> None:
    """Look for the map of every image, and read the first.

    Raises:
        UserError: no folder, or maps that are not there.
    """
    variant_name(options)
    if not Path(options.maps_path).is_dir():
        raise UserError(f"--maps-path {options.maps_path}: no such folder")
    missing = [name for name in names if not any(path.is_file() for path in _places(options.maps_path, name))]
    if missing:
        raise UserError(
            f"--maps-path {options.maps_path} has no map for {len(missing)} of {len(names)} images, first "
            f"{missing[0]} (looked for {_places(options.maps_path, missing[0])[0].name} and the like)"
        )
    read_map(_find(options.maps_path, names[0]))


def imported(explainee: Explainee, batch: Batch, options: BaselineOptions) -> Tensor:
    """Maps from the files of `--maps-path`."""
    size, maps = tuple(batch.images.shape[-2:]), []
    for name in batch.names:
        path = _find(options.maps_path, name)
        values = torch.from_numpy(read_map(path))
        if tuple(values.shape) != size:
            log.warning("%s is %s and is resized to %s", path, tuple(values.shape), size)
            values = F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        if values.min() == values.max():
            log.warning("%s is constant and counts as 0 everywhere", path)
        maps.append(values)
    return torch.stack(maps).to(batch.images.device)


def read_map(path: Path) -> np.ndarray:
    """A map of `.npy` (H, W), also (1, H, W) or (H, W, 1), or a grey `.png`: float32 (H, W).

    Raises:
        UserError: unreadable, of another shape, in colour, with NaN or infinities.
    """
    try:
        values = _read_npy(path) if path.suffix == ".npy" else _read_png(path)
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"cannot read the map {path}: {error}") from error
    if values.dtype.kind not in "fiub":
        raise UserError(f"the map {path} holds {values.dtype}, not numbers")
    shape = values.shape
    if values.ndim == 3 and 1 in (shape[0], shape[2]):
        values = values[0] if shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or min(values.shape) < 2:
        raise UserError(f"the map {path} has shape {shape}; wanted one number per pixel, (H, W)")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"the map {path} holds NaN or infinities; mend it, or leave its image out")
    return values


def _read_npy(path: Path) -> np.ndarray:
    values = np.load(
        path, mmap_mode="r", allow_pickle=False
    )  # a shape is believed only where the file has it
    if not isinstance(values, np.ndarray):
        raise ValueError("it is a .npz archive; wanted one array per file")
    if values.size > MAX_MEGAPIXELS * 1_000_000:
        raise ValueError(f"it holds {values.size} values")
    return np.array(values)


def _read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
            raise ValueError(f"it has more than {MAX_MEGAPIXELS} megapixels")
        values = np.asarray(image if image.mode not in ("P", "LA", "1") else image.convert("L"))
    if values.ndim == 3:
        if not (values[..., :3] == values[..., :1]).all():
            raise ValueError("it is in colour; a heat map's colours cannot be turned back into numbers")
        values = values[..., 0]
    return values


def _places(folder: Path, name: str) -> list[Path]:
    """Possible files of an image's map, the likeliest first."""
    stems = [Path(Path(name).stem)]
    if is_within(name):
        stems = [Path(name).with_suffix(""), Path(name), *stems]
    return [Path(folder) / f"{stem}{suffix}" for stem in stems for suffix in (".npy", ".png")]


def _find(folder: Path, name: str) -> Path:
    return next(path for path in _places(folder, name) if path.is_file())
