"""Does the map follow the class? Maps of several methods for several classes of the same pictures."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.digits import DigitsOnPhotos
from ltx.main.baselines.base import Batch
from ltx.main.baselines.baseline_run import scaled
from ltx.main.baselines.methods import BASELINES, parse_methods, resolve_methods
from ltx.main.baselines.options import BaselineOptions
from ltx.main.class_eval.options import ClassEvalOptions
from ltx.main.class_eval.questions import (
    ABSENT,
    BACKGROUND,
    OBJECT,
    Question,
    peaks_on_asked,
    questions_of,
    share_on_asked,
)
from ltx.main.common import cli
from ltx.main.common.figures import overlay, write_sheet
from ltx.main.common.options import PairOptions
from ltx.main.common.progress import progress_bar
from ltx.main.runs import tables
from ltx.main.runs.build_images import choose_images, open_segmentation_set
from ltx.main.runs.build_models import (
    explainee_record,
    explainer_path,
    pretrained_explainer,
    settled,
    with_explainer_named,
)
from ltx.main.runs.run_folder import open_run
from ltx.main.seg_classification.finetuning import Settings, finetune, pltx
from ltx.models.checkpoints import weights_sha256
from ltx.models.explainee import Explainee
from ltx.models.explainer_files import NoExplainerError
from ltx.models.losses import Objective
from ltx.models.masking import upsample

log = logging.getLogger(__name__)

PROTOCOL = "classes"
CONDITIONAL = "_class_conditional"
Maps = Callable[[Tensor, Tensor, list[str]], dict[str, Tensor]]
_BATCH = 8
_PICTURES = 8


@dataclass(frozen=True)
class Method:
    """What makes maps (N, H, W) in [0, 1], by variant, of images (N, 3, H, W) for classes (N,).

    Attributes:
        maps: the function; gets the images' names too.
        sha256: of the weights, None for a method without.
    """

    maps: Maps
    sha256: str | None = None


def open_pictures(options: ClassEvalOptions) -> ImageSet:
    """Two-digit pictures for digits, else a set with object masks.

    Raises:
        UserError: no such images.
    """
    images = open_segmentation_set(options)
    if isinstance(images, DigitsOnPhotos):
        return DigitsOnPhotos(images.split, len(images), images.image_size, n_digits=2)
    return images


def methods_of(options: ClassEvalOptions, explainee: Explainee, device: torch.device) -> list[Method]:
    """The class-conditional explainer, the plain one of the pair where there is one, and the baselines.

    Raises:
        UserError: no class-conditional explainer, or a baseline that does not fit the explainee.
    """
    asked = with_explainer_named(options)
    methods = [_explainer_method(asked, asked, explainee, device)]
    shared = cli.shared(asked, PairOptions, leave_out=("explainer_checkpoint",))
    plain = PairOptions(**shared, explainer_checkpoint=options.plain_checkpoint)
    try:
        explainer_path(plain)
        methods.append(_explainer_method(asked, plain, explainee, device))
    except NoExplainerError as error:
        if options.plain_checkpoint is not None:
            raise
        log.warning("no explainer that is not class-conditional stands beside it: %s", error)
    return methods + [_baseline_method(name, options, explainee) for name in _baselines(options, explainee)]


def _baselines(options: ClassEvalOptions, explainee: Explainee) -> list[str]:
    if options.method is not None:
        return resolve_methods(parse_methods(options.method), explainee)
    fitting = []
    for name in ("grad_cam", "generic_attention"):
        try:
            fitting += resolve_methods(parse_methods(name), explainee)
        except UserError as error:
            log.warning("%s is left out: %s", name, error)
    return fitting


def _explainer_method(
    options: ClassEvalOptions,
    pair: ClassEvalOptions | PairOptions,
    explainee: Explainee,
    device: torch.device,
) -> Method:
    explainer, path, _ = pretrained_explainer(pair, explainee)
    options = settled(options, explainer)
    explainer.to(device)
    suffix = CONDITIONAL if explainer.class_conditional else ""
    print(f"explainer: {path}")
    settings = Settings(options.steps, options.finetune_lr, slots=options.batch_size, select=False)
    objective = Objective.from_options(options)

    def maps(images: Tensor, classes: Tensor, names: list[str]) -> dict[str, Tensor]:
        if options.steps:
            masks = finetune(explainer, explainee, images, classes, classes, objective, settings)[0]
        else:
            masks = pltx(explainer, images, classes)
        kept = {name: masks[name] for name in ("pltx", "last") if name in masks}
        return {
            name + suffix: upsample(mask[:, None], images.shape[-2:])[:, 0] for name, mask in kept.items()
        }

    return Method(maps, weights_sha256(explainer))


def _baseline_method(name: str, options: ClassEvalOptions, explainee: Explainee) -> Method:
    baseline = BaselineOptions(method=name, explainee_model_name=explainee.name, seed=options.seed)

    def maps(images: Tensor, classes: Tensor, names: list[str]) -> dict[str, Tensor]:
        parts = [
            BASELINES[name].compute(explainee, Batch(images[i:j], classes[i:j], names[i:j]), baseline)
            for i, j in ((i, i + _BATCH) for i in range(0, len(images), _BATCH))
        ]
        return {name: scaled(torch.cat(parts), name, names)}

    return Method(maps)


def evaluate(
    options: ClassEvalOptions, explainee: Explainee, images: ImageSet, folder: Path, device: torch.device
) -> dict[str, dict]:
    """Asks every method for every class of the pictures and measures where its maps lie.

    Writes run.json, `per_question.csv`, `summary.json` and `sheet.png` into the folder.

    Returns:
        `rows` of summary.json.

    Raises:
        UserError: no explainer, no images, no labels, a baseline that does not fit.
    """
    chosen = choose_images(images, options)
    methods = methods_of(options, explainee, device)
    identity = {
        "explainee": weights_sha256(explainee.model),
        "explainers": [method.sha256 for method in methods if method.sha256],
        "dataset": images.describe() | {"root": None, "labels": None},
    }
    record = {"method": PROTOCOL, "dataset": images.describe(), "n_images": len(chosen)}
    record["explainee"] = explainee_record(options, explainee)
    run = open_run(folder, options, identity, record)
    measured, pictures = [], []
    with progress_bar(total=len(chosen), desc=folder.name, unit="image") as bar:
        for pixels, questions in questions_of(images, chosen, explainee, options.seed, options.num_workers):
            maps = _maps(methods, pixels, questions)
            for variant, values in maps.items():
                measured += [(variant, *_measured(s, q)) for s, q in zip(values, questions, strict=True)]
            if len(pictures) < _PICTURES:
                pictures += list(zip(pixels.cpu(), questions, *maps.values(), strict=True))
            bar.update(len({question.name for question in questions}))
    variants = list(maps)
    rows = {variant: _row([row[1:] for row in measured if row[0] == variant]) for variant in variants}
    header = ["variant", "image", "kind", "class", "mean", "share", "peak"]
    tables.write_per_image(folder / "per_question.csv", header, measured)
    settings = {"steps": options.steps, "class": "asked"}
    tables.write_summary(folder, PROTOCOL, settings, run["hash"], rows)
    _write_sheet(folder / "sheet.png", variants, pictures[:_PICTURES])
    return rows


def _maps(methods: list[Method], pixels: Tensor, questions: list[Question]) -> dict[str, np.ndarray]:
    """Maps (N, H, W) of all methods by variant."""
    classes = torch.tensor([question.label for question in questions], device=pixels.device)
    names = [question.name for question in questions]
    maps = {}
    for method in methods:
        maps |= method.maps(pixels, classes, names)
    return {variant: values.detach().cpu().numpy() for variant, values in maps.items()}


def _measured(saliency: np.ndarray, question: Question) -> tuple:
    """A row of per_question.csv, but for the variant; share and peak are NaN for an absent class."""
    head = (question.name, question.kind, question.label, float(saliency.mean()))
    if question.kind == ABSENT:
        return *head, float("nan"), float("nan")
    return *head, share_on_asked(saliency, question), float(peaks_on_asked(saliency, question))


def _row(measured: list[tuple]) -> dict[str, dict]:
    """The figures of one variant, in percent.

    `absent_ratio` is the mean of the maps for absent classes over the mean of those for the objects.
    """
    by_kind = {kind: [row[3:] for row in measured if row[1] == kind] for kind in (OBJECT, BACKGROUND, ABSENT)}
    row = {}
    for kind in (OBJECT, BACKGROUND):
        if by_kind[kind]:
            _, shares, peaks = np.array(by_kind[kind]).T
            row[f"{kind}_peak"] = tables.entry(100 * float(peaks.mean()), len(peaks), True)
            row[f"{kind}_share"] = tables.entry(100 * float(shares.mean()), len(shares), True)
    means = {kind: np.array(values)[:, 0].mean() for kind, values in by_kind.items() if values}
    row["object_mean"] = tables.entry(100 * float(means[OBJECT]), len(by_kind[OBJECT]), None)
    if ABSENT in means:
        n = len(by_kind[ABSENT])
        row["absent_mean"] = tables.entry(100 * float(means[ABSENT]), n, False)
        ratio = means[ABSENT] / means[OBJECT] if means[OBJECT] > 0 else np.nan
        row["absent_ratio"] = tables.entry(100 * float(ratio), n, False)
    return row


def _write_sheet(path: Path, variants: list[str], pictures: list[tuple]) -> None:
    """One row per question: the picture, then the map of each method over it, as bright as it is."""
    rows, captions = [], []
    for pixels, question, *maps in pictures:
        laid_over = [overlay(pixels, torch.from_numpy(saliency)) for saliency in maps]
        rows.append([pixels.permute(1, 2, 0).numpy(), *laid_over])
        captions.append(f"{question.kind}\n{question.label}")
    write_sheet(path, rows, ["image", *variants], captions)
