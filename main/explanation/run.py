"""A run that explains pictures: which explainer, and the mask file and the pictures of each."""

import dataclasses
import logging
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ltx import config
from ltx.config import UserError, recipe_suffix
from ltx.datasets.base import BadImageError, to_tensor
from ltx.datasets.classes import short_name
from ltx.datasets.pictures import PictureFiles, shown_name
from ltx.main.api import explain
from ltx.main.common.memory import SideBySide, measure_slot
from ltx.main.common.progress import progress_bar
from ltx.main.explanation.options import ExplainOptions
from ltx.main.explanation.pictures import Explained, stems, write_pictures
from ltx.main.explanation.plan import Plan
from ltx.main.runs.build_models import explainee_record
from ltx.main.runs.mask_files import MaskUnit, read_unit, unit_path, write_unit
from ltx.main.runs.run_folder import open_run, write_manifest
from ltx.main.runs.skipped import write_lists
from ltx.models.checkpoints import weights_sha256
from ltx.models.explainee import Explainee, class_scores

log = logging.getLogger(__name__)

SCORES = ("probability", "masked_probability", "complement_probability", "mask_area")
_TOP = 5


def open_folder(
    options: ExplainOptions, explainee: Explainee, pictures: PictureFiles, plan: Plan
) -> tuple[Path, dict]:
    """The run's folder and run.json; without `--run-name`, the first one that is free or holds this run.

    Raises:
        UserError: the named folder holds another run.
    """
    identity = {
        "explainee": weights_sha256(explainee.model),
        "explainer": weights_sha256(plan.explainer),
        "pictures": [_fingerprint(pictures.path(index)) for index in range(len(pictures))],
        "plan": {
            "targets": plan.targets,
            "steps": plan.steps,
            "lr": plan.lr,
            "shown": plan.shown,
            "objective": dataclasses.asdict(plan.objective),
        },
    }
    record = {
        "method": plan.method,
        "dataset": pictures.describe(),
        "explainee": explainee_record(options, explainee),
        "explainer": {
            "name": plan.explainer.name,
            "checkpoint": plan.source,
            "sha256": identity["explainer"],
        },
        "score_class": "explained",
        "n_images": len(pictures),
        "unit_size": 1,
        "input_size": list(explainee.input_size),
    }
    root = options.default_root_dir or config.RESULTS
    if options.run_name is not None:
        return root / options.run_name, open_run(root / options.run_name, options, identity, record)
    what = stems(pictures.names)[0] if len(pictures) == 1 else pictures.root.name
    name = f"explain-{what}-{explainee.name}-{plan.method}{recipe_suffix(options.recipe)}"
    for folder in (root / (name if number == 1 else f"{name}-{number}") for number in range(1, 1000)):
        try:
            return folder, open_run(folder, options, identity, record)
        except UserError:
            log.info("%s holds another run", folder)
    raise UserError(f"{root} is full of runs named {name}; pass --run-name")


def side_by_side(asked: int | str, plan: Plan, explainee: Explainee) -> SideBySide:
    """How many pictures and classes are explained at once; both models are on the device.

    Args:
        asked: what `--batch-size` says, a number or `auto`.
        plan: how pictures are explained.
        explainee: what is explained.

    Raises:
        UserError: a given number that does not fit; the message says which one would.
    """
    memory = measure_slot(plan.explainer, explainee, plan.objective)
    if not plan.steps:  # one forward pass for all, with the explainer's own weights
        memory = dataclasses.replace(memory, weights=0)
    return SideBySide(asked, memory, explainee.mean.device, quiet=not plan.steps)


def explain_all(
    folder: Path,
    run: dict,
    explainee: Explainee,
    pictures: PictureFiles,
    plan: Plan,
    names: list[str],
    side: SideBySide,
    skip_bad: bool = False,
):
    """Explains pictures side by side; one that has its mask file already is not explained again.

    Args:
        folder: the run's folder.
        run: its run.json.
        explainee: on the device.
        pictures: what to explain.
        plan: how.
        names: name of each class.
        side: how many pictures and classes at once; changes memory and speed only.
        skip_bad: go on at a picture that cannot be read; its mask file says so and holds no mask.

    Yields:
        Name, `MaskUnit` and sheet of each picture that was not skipped.

    Raises:
        UserError: a picture cannot be read, or with `skip_bad` none can.
    """
    write_manifest(folder / "manifest.csv", pictures, range(len(pictures)))
    attributes = {"method": plan.method, "run_hash": run["hash"], "explainee": explainee.name}
    attributes |= {"explainer": plan.explainer.name, "input_size": list(explainee.input_size)}
    stem = stems(pictures.names)
    paths = [unit_path(folder, range(index, index + 1)) for index in range(len(pictures))]
    at_once = max(1, side.n // max(1, len(plan.targets)))
    with progress_bar(total=len(pictures), desc=folder.name, unit="picture") as bar:
        for some in torch.arange(len(pictures)).split(at_once):
            todo = [index for index in some.tolist() if not paths[index].is_file()]
            opened, skipped = _open_pictures(pictures, todo, skip_bad)
            work = partial(explain_pictures, [*opened.values()], [*opened], explainee, plan)
            made = side.run(work) if opened else []
            for (index, picture), unit in zip(opened.items(), made, strict=True):
                unit.attributes |= attributes
                if wrong := unit.not_finite():
                    skipped[index] = f"image {pictures.names[index]}: {next(iter(wrong.values()))}"
                    continue
                write_pictures(folder, stem[index], Explained.of(picture, unit, plan.shown, names))
                write_unit(paths[index], unit)
            for index, why in skipped.items():
                log.warning("skipped %s: %s", pictures.names[index], why)
                none = np.empty(0, np.int64)
                write_unit(paths[index], MaskUnit(none, none, attributes=attributes, skipped={index: why}))
            for index in some.tolist():
                bar.update()
                unit = read_unit(paths[index])
                if len(unit.index):
                    yield pictures.names[index], unit, folder / f"{stem[index]}_sheet.png"
    if write_lists(folder) == 0:
        raise UserError(
            f"none of the {len(pictures)} pictures could be explained; {folder}/skipped.csv says why"
        )


def _open_pictures(
    pictures: PictureFiles, todo: list[int], skip_bad: bool
) -> tuple[dict[int, Image.Image], dict[int, str]]:
    """Pictures by position, and why others cannot be read."""
    opened, skipped = {}, {}
    for index in todo:
        try:
            opened[index] = pictures.picture(index)
        except BadImageError as error:
            if not skip_bad:
                raise
            skipped[index] = str(error)
    return opened, skipped


def explain_pictures(
    pictures: list[Image.Image], index: list[int], explainee: Explainee, plan: Plan, batch_size: int = 16
) -> list[MaskUnit]:
    """The masks and scores of some pictures, a row per class in each one's `MaskUnit`.

    Args:
        pictures: RGB.
        index: their positions in the run's manifest.
        explainee: on the device.
        plan: how.
        batch_size: pictures and classes side by side.
    """
    n_classes = max(1, len(plan.targets))
    images = torch.stack([to_tensor(picture, explainee.input_size) for picture in pictures])
    images = images.to(explainee.mean.device)
    with torch.no_grad():
        logits = torch.cat([explainee(part) for part in images.split(batch_size)])
        probability = class_scores(logits, explainee.multi_label)
        top = probability.topk(min(_TOP, probability.shape[1]))
    explanation = explain(
        plan.explainer, explainee, images.repeat_interleave(n_classes, dim=0),
        plan.targets * len(pictures) or None, plan.steps, plan.lr, plan.objective, plan.shown, batch_size,
    )  # fmt: skip
    arrays = explanation.scores | explanation.figures
    arrays |= {
        "top_class": top.indices.repeat_interleave(n_classes, dim=0),
        "top_probability": top.values.repeat_interleave(n_classes, dim=0),
    }
    arrays = {name: values.cpu().numpy() for name, values in arrays.items()}
    arrays["predicted"] = arrays["top_class"][:, 0]
    arrays["label"] = np.full(len(images) * n_classes, -1)
    masks = {name: values.cpu().numpy() for name, values in explanation.variants.items()}
    target = explanation.target.cpu().numpy()
    units = []
    for number, position in enumerate(index):
        rows = slice(number * n_classes, (number + 1) * n_classes)
        own = [{name: values[rows] for name, values in group.items()} for group in (masks, arrays)]
        units.append(MaskUnit(np.full(n_classes, position), target[rows], own[0], {}, own[1]))
    return units


def describe(name: str, unit: MaskUnit, plan: Plan, names: list[str]) -> str:
    """What is said of one picture: its top classes and, for each class explained, the scores of its mask."""
    top = zip(unit.arrays["top_class"][0], unit.arrays["top_probability"][0], strict=True)
    lines = [f"{name}", "  " + ", ".join(f"{short_name(names[c])} {p:.1%}" for c, p in top)]
    for row, target in enumerate(unit.target):
        p, masked, complement, area = (float(unit.arrays[score][row]) for score in SCORES)
        lines.append(
            f"  {short_name(names[target])} ({target}), {plan.shown}: keeps {area:.1%} of the image; "
            f"probability {p:.1%}, on the masked image {masked:.1%}, on its complement {complement:.1%}"
        )
    return "\n".join(lines)


def mean_scores(units: list[MaskUnit], plan: Plan) -> dict[str, dict[str, float]]:
    """Means of the scores over all pictures and classes, in percent, under the variant that is shown."""
    values = {name: np.concatenate([unit.arrays[name] for unit in units]) for name in SCORES}
    return {plan.shown: {name: 100 * float(value.mean()) for name, value in values.items()}}


def _fingerprint(path: Path) -> list:
    status = path.lstat()
    return [shown_name(path.name), status.st_size, status.st_mtime_ns]
