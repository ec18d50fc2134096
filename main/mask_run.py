"""A run that makes masks: its folder, its images, and its work units, for every method alike."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from config import UserError
from datasets.base import ImageSet
from datasets.build import batches
from datasets.manifest import from_manifest, read_names, write_manifest
from datasets.mask_files import MaskUnit, unit_path, units, write_unit
from main.claims import claimed
from main.cli import progress_bar
from main.run_folder import open_run
from main.shards import shard_of
from main.speed import pins, to_device
from models.checkpoints import remove_leftovers
from models.explainee import Explainee

# Ends the name of every variant that was made for a model with random weights.
RANDOMISED = "_randomised"


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


def choose_images(images: ImageSet, options) -> list[int]:
    """Positions of the images that `ChosenImageOptions` ask for.

    Raises:
        UserError: none are left.
    """
    chosen = from_manifest(options.manifest, images) if options.manifest else list(range(len(images)))
    if options.exclude_manifest:
        excluded = set(read_names(options.exclude_manifest))
        chosen = [index for index in chosen if images.names[index] not in excluded]
    if options.max_images is not None:
        chosen = chosen[: options.max_images]
    if not chosen:
        raise UserError("no images are left; look at --max-images, --manifest and --exclude-manifest")
    return chosen


def needs_labels(images: ImageSet, chosen: list[int], options) -> None:
    """Raises `UserError` where the true class is asked for and an image has none."""
    if options.train_model_by_target_gt_class or options.score_class == "target":
        missing = next((images.names[index] for index in chosen if images.labels[index] < 0), None)
        if missing is not None:
            flag = (
                "--train-model-by-target-gt-class True"
                if options.train_model_by_target_gt_class
                else "--score-class"
            )
            raise UserError(f"{flag} needs labels and image {missing} has none; pass --labels-path")


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
        UserError: the folder holds another run, another process is at work on the same mask files, or an
            image cannot be read.
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
    return run


@contextlib.contextmanager
def _claim_missing(folder: Path, mine: list[range], unit_size: int) -> Iterator[list[range]]:
    """Those of this process's work units that have no mask file; no other process makes them meanwhile."""

    def missing() -> list[range]:
        return [unit for unit in mine if not unit_path(folder, unit).is_file()]

    with claimed(folder, [unit.start // unit_size for unit in missing()], "the same mask files"):
        yield missing()  # again: another process may have made some, and have ended, until the claim


def _make_unit(explainee, images, chosen, unit, options, method, device, bar) -> MaskUnit:
    loaded, labels, predicted = [], [], []
    for batch in batches(images, [chosen[index] for index in unit], 32, options.num_workers, pins(device)):
        loaded.append(to_device(batch["image"], device))
        labels.append(batch["label"])
        with torch.no_grad():
            predicted.append(explainee(loaded[-1]).argmax(1))
    labels, predicted = torch.cat(labels).to(device), torch.cat(predicted)
    explained = labels if options.train_model_by_target_gt_class else predicted
    scored = {"explained": explained, "target": labels, "predicted": predicted}[options.score_class]
    index = torch.tensor(list(unit))
    made = method(UnitInput(torch.cat(loaded), explained, scored, index, bar.update))
    made.index, made.target = index.numpy(), explained.cpu().numpy()
    made.arrays |= {"label": labels.cpu().numpy(), "predicted": predicted.cpu().numpy()}
    return made
