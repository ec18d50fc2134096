"""A run that makes masks: its folder, its images, and its work units, for every method alike."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.build import BAD, batches
from ltx.main.common.devices import pins, to_device
from ltx.main.common.launch import shard_of
from ltx.main.common.progress import progress_bar
from ltx.main.runs.build_images import needs_labels
from ltx.main.runs.locks import claimed
from ltx.main.runs.mask_files import NOT_FINITE, MaskUnit, unit_path, units, write_unit
from ltx.main.runs.run_folder import open_run, write_manifest
from ltx.main.runs.skipped import SKIPPED_FILE, write_lists
from ltx.models.explainee import Explainee
from ltx.models.files import remove_leftovers

log = logging.getLogger(__name__)

# Ends the name of every variant that was made for a model with random weights.
RANDOMISED = "_randomised"
_READ_AT_ONCE = 32


@dataclass
class UnitInput:
    """What a method gets for one work unit of N images.

    Attributes:
        images: (N, 3, H, W) in [0, 1], on the device.
        classes: (N,) class to explain.
        scored: (N,) class whose metrics select, where a method selects.
        index: (N,) positions in the run's manifest.
        progress: to be called with the number of images that are done.
    """

    images: Tensor
    classes: Tensor
    scored: Tensor
    index: Tensor
    progress: Callable[[int], None]






def make_masks(
    folder: Path,
    options,
    explainee: Explainee,
    images: ImageSet,
    chosen: list[int],
    identity: dict,
    record: dict,
    method: Callable[[UnitInput], MaskUnit],
    unit_size: int,
    device: torch.device,
    attributes: dict,
) -> dict:
    """Fills a run folder with mask files; what is there already is not made again.

    Args:
        folder: the run folder.
        options: the script's options.
        explainee: the model that is explained, on the device.
        images: the image set.
        chosen: positions of the run's images.
        identity: what else makes the run what it is (weights, ...).
        record: further content of run.json; `candidates` says how many maps each variant was chosen from.
        method: makes the maps of one unit; gets `UnitInput`, returns a `MaskUnit` with maps and arrays.
        unit_size: images per mask file.
        device: where to compute.
        attributes: of each mask file.

    Returns:
        The content of run.json.

    Raises:
        UserError: the folder holds another run, another process is at work on the same mask files, an image
            cannot be read (`on_bad_image` "fail"), or none can.
    """
    needs_labels(images, chosen, options)
    suffix = RANDOMISED if getattr(options, "randomise_weights", False) else ""
    candidates = {variant + suffix: n for variant, n in record.get("candidates", {}).items()}
    names = hashlib.sha256("\n".join(images.names[index] for index in chosen).encode()).hexdigest()
    identity = identity | {"images": names, "dataset": images.describe() | {"root": None, "labels": None}}
    record = record | {
        "dataset": images.describe(),
        "score_class": options.score_class,
        "n_images": len(chosen),
        "candidates": candidates,
        "unit_size": unit_size,
        "input_size": list(explainee.input_size),
    }
    run = open_run(folder, options, identity, record)
    write_manifest(folder / "manifest.csv", images, chosen)
    mine = shard_of(units(len(chosen), unit_size), options.num_shards, options.shard_index)
    attributes = attributes | {"run_hash": run["hash"], "score_class": options.score_class}
    attributes |= {"explainee": explainee.name, "input_size": list(explainee.input_size)}
    attributes["candidates"] = json.dumps(candidates)
    total = sum(map(len, mine))
    with (
        _claim_missing(folder, mine, unit_size) as todo,
        progress_bar(total=total, initial=total - sum(map(len, todo)), desc=folder.name, unit="image") as bar,
    ):
        for unit in todo:
            remove_leftovers(unit_path(folder, unit))
            made = _make_unit(explainee, images, chosen, unit, options, method, device, bar)
            made.attributes = attributes
            for group in ("token_masks", "saliency"):
                setattr(made, group, {name + suffix: maps for name, maps in getattr(made, group).items()})
            write_unit(unit_path(folder, unit), made)
            if made.skipped or (made.arrays.get(NOT_FINITE, np.array([-1])) >= 0).any():
                write_lists(folder)
    if mine:
        _check_any(folder, images, chosen, unit_size)
    return run


def _check_any(folder: Path, images: ImageSet, chosen: list[int], unit_size: int) -> None:
    """Raises `UserError` where all mask files are there and none of the images has a map."""
    if write_lists(folder) == 0 and all(
        unit_path(folder, unit).is_file() for unit in units(len(chosen), unit_size)
    ):
        raise UserError(
            f"none of the {len(chosen)} images could be explained, {images.names[chosen[0]]} first; "
            f"{folder / SKIPPED_FILE} says why (delete the folder to try again)"
        )


@contextlib.contextmanager
def _claim_missing(folder: Path, mine: list[range], unit_size: int) -> Iterator[list[range]]:
    """Those of this process's work units that have no mask file; no other process makes them meanwhile."""

    def missing() -> list[range]:
        return [unit for unit in mine if not unit_path(folder, unit).is_file()]

    with claimed(folder, [unit.start // unit_size for unit in missing()], "the same mask files"):
        yield missing()  # again: another process may have made some, and have ended, until the claim


def _make_unit(explainee, images, chosen, unit, options, method, device, bar) -> MaskUnit:
    loaded, labels, predicted, index, skipped = [], [], [], [], {}
    todo, skip = list(unit), options.on_bad_image == "skip"
    loader = batches(
        images, [chosen[i] for i in unit], _READ_AT_ONCE, options.num_workers, pins(device), skip
    )
    for number, batch in enumerate(loader):
        positions = todo[number * _READ_AT_ONCE : (number + 1) * _READ_AT_ONCE]
        reasons = batch.get(BAD, [""] * len(positions))
        skipped |= {position: why for position, why in zip(positions, reasons, strict=True) if why}
        read = [row for row, why in enumerate(reasons) if not why]
        if not read:
            continue
        index += [positions[row] for row in read]
        read = slice(None) if len(read) == len(reasons) else read  # no copy out of pinned memory
        loaded.append(to_device(batch["image"][read], device))
        labels.append(batch["label"][read])
        with torch.no_grad():
            predicted.append(explainee(loaded[-1]).argmax(1))
    bar.update(len(skipped))
    if index:
        loaded, predicted, labels = torch.cat(loaded), torch.cat(predicted), torch.cat(labels).to(device)
        explained = labels if options.train_model_by_target_gt_class else predicted
        scored = {"explained": explained, "target": labels, "predicted": predicted}[options.score_class]
        made = method(UnitInput(loaded, explained, scored, torch.tensor(index), bar.update))
        made.index, made.target = np.array(index), explained.cpu().numpy()
        made.arrays |= {"label": labels.cpu().numpy(), "predicted": predicted.cpu().numpy()}
        names = {row: images.names[chosen[position]] for row, position in enumerate(index)}
        made = made.without({row: f"image {names[row]}: {why}" for row, why in made.not_finite().items()})
    else:
        made = MaskUnit(np.empty(0, np.int64), np.empty(0, np.int64))
    made.skipped |= skipped
    for position, why in sorted(made.skipped.items()):
        log.warning("skipped %s: %s", images.names[chosen[position]], why)
    return made
