"""A run that makes masks, opened once from its options: folder, models, images, mask files, scores."""

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltx import config
from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.build import BAD, batches, rebuild
from ltx.datasets.imagenet import check_labels
from ltx.main.common.cli import shared
from ltx.main.common.devices import pick_device, pins, to_device
from ltx.main.common.launch import shard_of
from ltx.main.common.progress import progress_bar
from ltx.main.runs.build_images import choose_images, needs_labels
from ltx.main.runs.build_models import explainee_record, load_explainee
from ltx.main.runs.locks import claimed
from ltx.main.runs.mask_files import NOT_FINITE, MaskUnit, unit_path, units, write_unit
from ltx.main.runs.method import Ask, Batch, Maps, Method, one_class
from ltx.main.runs.run_folder import open_run, write_manifest
from ltx.main.runs.run_record import RunRecord
from ltx.main.runs.skipped import SKIPPED_FILE, counts, write_lists
from ltx.models.explainee import Explainee
from ltx.models.files import remove_leftovers

log = logging.getLogger(__name__)

# Ends the name of every variant that was made for a model with random weights.
RANDOMISED = "_randomised"
_READ_AT_ONCE = 32
# Options of an evaluation that do not follow the run's: scores are taken in float32 and of all its images.
_OWN_OPTIONS = ("batch_size", "exclude_manifest", "precision", "segmentation_root")


@dataclass
class MaskJob:
    """A run that makes masks.

    Attributes:
        folder: the run folder.
        options: the script's options; those that change results are part of the run's identity.
        explainee: on the device.
        images: the image set.
        chosen: positions of the run's images in the set.
        ask: see `Ask` (default: one class for each image, as `ExplaineeOptions` say).
        unit_size: images per mask file (default: the options').
        identity: what tells the images apart (default: their names and the set).

    Raises:
        UserError: the true class is asked for and an image has no label.
    """

    folder: Path
    options: Any
    explainee: Explainee
    images: ImageSet
    chosen: Sequence[int]
    ask: Ask | None = None
    unit_size: int | None = None
    identity: dict[str, Any] | None = None

    def __post_init__(self):
        if self.ask is None:
            needs_labels(self.images, self.chosen, self.options)
            self.ask = one_class(self.options)
        self.unit_size = self.unit_size or self.options.unit_size
        if self.identity is None:
            names = "\n".join(self.images.names[index] for index in self.chosen)
            described = self.images.describe() | {"root": None, "labels": None}
            self.identity = {"images": hashlib.sha256(names.encode()).hexdigest(), "dataset": described}
        self._explainee_record = explainee_record(self.options, self.explainee)
        self._suffix = RANDOMISED if getattr(self.options, "randomise_weights", False) else ""

    @classmethod
    def open(cls, options, images: ImageSet, name: Callable[[Any, str], str], **more) -> "MaskJob":
        """Resolve the options of a script: device, explainee, chosen images and folder.

        Args:
            options: the script's options.
            images: the image set of the options.
            name: from the options and the kind of images to the folder's name, where no `run_name` is given.
            **more: see `MaskJob`.

        Raises:
            UserError: no weights, no images left, a label outside the classes.
        """
        explainee = load_explainee(options).to(pick_device(options.device))
        if images.image_size != tuple(explainee.input_size):  # weights may come with a size of their own
            images = rebuild(images.describe(), explainee.input_size)
        check_labels(images, explainee.num_classes)
        run_name = options.run_name or name(options, images.describe()["kind"])
        folder = (options.default_root_dir or config.RESULTS) / run_name
        return cls(folder, options, explainee, images, choose_images(images, options), **more)

    @property
    def device(self) -> torch.device:
        """Device of the explainee."""
        return self.explainee.mean.device

    def start(self, method: Method) -> RunRecord:
        """Open the run folder for a method.

        Returns:
            The content of run.json.

        Raises:
            UserError: the folder holds another run.
        """
        identity = {**self.identity, "explainee": self._explainee_record["sha256"], **method.identity}
        candidates = method.record.get("candidates", {})
        record = {
            "method": method.name,
            "explainee": self._explainee_record,
            **method.record,
            "candidates": {variant + self._suffix: n for variant, n in candidates.items()},
            "dataset": self.images.describe(),
            "score_class": getattr(self.options, "score_class", "explained"),
            "n_images": len(self.chosen),
            "unit_size": self.unit_size,
            "input_size": list(self.explainee.input_size),
        }
        run = open_run(self.folder, method.options or self.options, identity, record)
        write_manifest(self.folder / "manifest.csv", self.images, self.chosen)
        return run

    def fill(self, method: Method) -> None:
        """Write the mask files that are missing; see `made`."""
        for _ in self.made(method):
            pass

    def made(self, method: Method) -> Iterator[Path]:
        """Yield this process's mask files in order; one that is missing is made first.

        Raises:
            UserError: the folder holds another run, another process is at work on the same mask files, an
                image cannot be read (`on_bad_image` "fail"), or none can.
        """
        attributes = self._attributes(method, self.start(method))
        mine, total = self._mine(), sum(map(len, self._mine()))
        with (
            self._claim_missing(mine) as todo,
            progress_bar(
                total=total, initial=total - sum(map(len, todo)), desc=self.folder.name, unit="image"
            ) as bar,
        ):
            for start in range(0, len(mine), method.at_once):
                some = mine[start : start + method.at_once]
                if missing := [unit for unit in some if unit in todo]:
                    self._make(method, missing, attributes, bar)
                yield from (unit_path(self.folder, unit) for unit in some)
        if mine:
            self._check_any()

    def evaluate(self, options_class: type, score: Callable[[Any], dict]) -> tuple[Path, dict, dict]:
        """Score the mask files, unless `--evaluate False`.

        Args:
            options_class: dataclass of the evaluation's options; it takes the values that both have.
            score: from these options to the closing results.

        Returns:
            The run folder, the results, and how many images were left out.
        """
        if not self.options.evaluate:
            return self.folder, {}, counts(self.folder)
        values = shared(self.options, options_class, _OWN_OPTIONS)
        results = score(options_class(run_folder=self.folder, **values))
        return self.folder, results, counts(self.folder)

    def _mine(self) -> list[range]:
        """This process's work units: all of them where the script knows no shards."""
        options, all_units = self.options, units(len(self.chosen), self.unit_size)
        if not hasattr(options, "num_shards"):
            return all_units
        return shard_of(all_units, options.num_shards, options.shard_index)

    def _attributes(self, method: Method, run: RunRecord) -> dict[str, Any]:
        """Attributes of every mask file."""
        attributes: dict[str, Any] = {"method": ",".join(method.record.get("methods", [method.name]))}
        if "explainer" in method.record:
            attributes["explainer"] = method.record["explainer"]["name"]
        attributes |= {"run_hash": run.hash, "score_class": run.get("score_class", "explained")}
        attributes |= {"explainee": self.explainee.name, "input_size": list(self.explainee.input_size)}
        return attributes | {"candidates": json.dumps(run.get("candidates", {}))}

    @contextlib.contextmanager
    def _claim_missing(self, mine: list[range]) -> Iterator[set[range]]:
        """This process's work units without a mask file; no other process makes them meanwhile."""

        def missing() -> set[range]:
            return {unit for unit in mine if not unit_path(self.folder, unit).is_file()}

        claim = sorted(unit.start // self.unit_size for unit in missing())
        with claimed(self.folder, claim, "the same mask files"):
            yield missing()  # again: another process may have made some, and have ended, until the claim

    def _make(self, method: Method, some: list[range], attributes: dict, bar) -> None:
        """Make and write the mask files of some work units."""
        for unit in some:
            remove_leftovers(unit_path(self.folder, unit))
        positions = [position for unit in some for position in unit]
        batch, arrays, skipped = self._read(positions)
        bar.update(len(skipped))
        made = MaskUnit(np.empty(0, np.int64), np.empty(0, np.int64), skipped=skipped)
        if batch is not None:
            done = bar.n + len(positions) - len(skipped)
            if len(batch.images) == len(positions) - len(skipped):
                batch = dataclasses.replace(batch, progress=bar.update)
            made = self._unit(batch, method.explain(batch), arrays, skipped)
            bar.update(done - bar.n)
        made.attributes = attributes
        for position, why in sorted(made.skipped.items()):
            log.warning("skipped %s: %s", self.images.names[self.chosen[position]], why)
        for unit in some:
            write_unit(unit_path(self.folder, unit), made.part(unit))
        if made.skipped or (made.arrays.get(NOT_FINITE, np.array([-1])) >= 0).any():
            write_lists(self.folder)

    def _read(self, positions: list[int]) -> tuple[Batch | None, dict[str, Tensor], dict[int, str]]:
        """Images with their classes as a batch, figures by row, and by position why others are missing."""
        options, skipped, parts, arrays = self.options, {}, [], []
        workers, skip = getattr(options, "num_workers", 0), getattr(options, "on_bad_image", "fail") == "skip"
        chosen = [self.chosen[position] for position in positions]
        loader = batches(self.images, chosen, _READ_AT_ONCE, workers, pins(self.device), skip)
        for number, data in enumerate(loader):
            index = torch.tensor(positions[number * _READ_AT_ONCE :][:_READ_AT_ONCE])
            reasons = data.pop(BAD, [""] * len(index))
            skipped |= {int(i): why for i, why in zip(index, reasons, strict=True) if why}
            read = [row for row, why in enumerate(reasons) if not why]
            if not read:
                continue
            if len(read) < len(reasons):  # else no copy out of pinned memory
                data, index = {name: values[read] for name, values in data.items()}, index[read]
            pixels = to_device(data["image"], self.device)
            with torch.no_grad():
                logits = self.explainee(pixels)
            asked = self.ask(data, logits, self.explainee)
            rows = asked.rows.to(pixels.device)
            if len(rows) != len(pixels):
                pixels, logits = pixels[rows], logits[rows]
            parts.append((pixels, asked.classes, asked.scored, index[asked.rows], logits))
            label = data["label"][asked.rows]
            arrays.append({"label": label, "predicted": logits.argmax(1), **asked.figures})
        if not parts:
            return None, {}, skipped
        images, classes, scored, index, logits = (torch.cat(group) for group in zip(*parts, strict=True))
        names = [self.images.names[self.chosen[position]] for position in index.tolist()]
        figures = {name: torch.cat([one[name] for one in arrays]) for name in arrays[0]}
        return Batch(images, classes, names, scored, index, logits), figures, skipped

    def _unit(self, batch: Batch, maps: Maps, arrays: dict[str, Tensor], skipped: dict[int, str]) -> MaskUnit:
        """Maps as they are stored, without the images whose maps are not finite."""
        token_masks, saliency = (
            {name + self._suffix: _array(values) for name, values in group.items()}
            for group in (maps.token_masks, maps.saliency)
        )
        figures = {name: _array(values) for name, values in (maps.figures | arrays).items()}
        made = MaskUnit(_array(batch.index), _array(batch.classes), token_masks, saliency, figures)
        made.skipped = skipped
        wrong = made.not_finite()
        return made.without({int(batch.index[i]): f"image {batch.names[i]}: {wrong[i]}" for i in wrong})

    def _check_any(self) -> None:
        """Raise `UserError` where all mask files are there and none of the images has a map."""
        done = all(unit_path(self.folder, unit).is_file() for unit in units(len(self.chosen), self.unit_size))
        if write_lists(self.folder) == 0 and done:
            raise UserError(
                f"none of the {len(self.chosen)} images could be explained, "
                f"{self.images.names[self.chosen[0]]} first; {self.folder / SKIPPED_FILE} says why "
                "(delete the folder to try again)"
            )


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
