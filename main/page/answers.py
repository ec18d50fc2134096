"""Answers of the page: the top classes of a picture, its mask step by step, and other methods' maps."""

import json
import queue
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ltx.config import UserError
from ltx.datasets.base import seen, to_tensor
from ltx.datasets.classes import short_name
from ltx.main.baselines.methods import BASELINES
from ltx.main.baselines.options import BaselineOptions
from ltx.main.common.drawing import masked_image, overlay
from ltx.main.common.figures import to_image
from ltx.main.explanation.pictures import slug
from ltx.main.interface.explain import explain_as
from ltx.main.page.models import Loaded
from ltx.main.runs.method import Batch
from ltx.models.explainee import Explainee, class_scores
from ltx.models.losses import Objective
from ltx.models.masking import upsample
from ltx.models.sharing import shared_copy

TOP = 5
# Compared unless others are chosen: the first three of these that work here.
_USUAL = ("grad_cam", "ablation_cam", "full_grad", "generic_attention", "input_gradient", "centre_gaussian")
_NOT_OFFERED = {"random", "import", "rise"}  # no explanation; files; too slow to wait for


class Stopped(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Answer:
    """A mask over a picture.

    Attributes:
        pixels: (3, H, W) in [0, 1], what the explainee sees of the picture.
        saliency: (H, W) in [0, 1].
        step: number of the mask, from 0.
        scores: see `Explanation.scores`; empty before the last step.
        warnings: see `Explanation.warnings`; likewise.
    """

    pixels: Tensor
    saliency: Tensor
    step: int
    scores: dict[str, float]
    warnings: Sequence[str] = ()

    @property
    def overlay(self) -> Image.Image:
        """The picture under its map."""
        return to_image(overlay(self.pixels, self.saliency))

    @property
    def kept(self) -> Image.Image:
        """The picture times the map, brightened so that faint maps show."""
        return to_image(masked_image(self.pixels, self.saliency))

    def text(self, name: str) -> str:
        """The scores in words."""
        p, masked, without, area = (
            self.scores[key]
            for key in ("probability", "masked_probability", "complement_probability", "mask_area")
        )
        text = (
            f"{name}: {p:.1%}. Kept {area:.1%} of the picture: alone it gives {masked:.1%}, "
            f"without it {without:.1%}."
        )
        return " ".join([text, *(f"Failed: {warning}." for warning in self.warnings)])


@torch.no_grad()
def top_classes(loaded: Loaded, picture: Image.Image) -> list[tuple[int, str, float]]:
    """Index, short name and probability of the likeliest classes.

    Raises:
        UserError: the explainee gives NaN.
    """
    logits = loaded.explainee(_input(loaded.explainee, picture))
    if not logits.isfinite().all():
        raise UserError(f"'{loaded.explainee.name}' gives NaN or infinite values for this picture")
    scores = class_scores(logits, loaded.explainee.multi_label)[0]
    top = scores.topk(min(TOP, len(scores)))
    rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [(c, short_name(loaded.names[c]), p) for c, p in rows]


@dataclass(frozen=True)
class _Watched(Objective):
    """An objective that shows each step's masks to `seen`, which may raise to end the steps."""

    seen: Callable[[Tensor], None] = lambda masks: None

    def __call__(self, explainee, images, token_masks, classes, step=0):
        self.seen(token_masks)
        return super().__call__(explainee, images, token_masks, classes, step)


def refine(
    loaded: Loaded, picture: Image.Image, target: int, steps: int, seconds: float, stop: threading.Event
) -> Iterator[Answer]:
    """The mask of a class while the steps refine it; closing the iterator ends the work.

    Args:
        loaded: the model.
        picture: RGB.
        target: class to explain.
        steps: masks to make; 0 for one forward pass.
        seconds: longest time.
        stop: ends the work when set, without an error.

    Yields:
        The newest mask each time, at last that of the last step with its scores.

    Raises:
        UserError: the time is up, or a class or steps that make no sense.
    """
    news: queue.Queue = queue.Queue()
    deadline, method = time.monotonic() + seconds, loaded.method
    over = threading.Event()

    def look(masks: Tensor) -> None:
        if stop.is_set() or over.is_set():
            raise Stopped
        if time.monotonic() > deadline:
            raise UserError(f"stopped after {seconds:g} seconds; take fewer steps")
        news.put(masks.detach()[0, 0].float().cpu())

    def work() -> None:
        how = replace(method.how, steps=steps, objective=_Watched(**vars(method.how.objective), seen=look))
        image = _input(loaded.explainee, picture)
        try:
            news.put(explain_as(method.explainer, loaded.explainee, image, target, how))
        except BaseException as error:
            news.put(error)

    pixels = _pixels(seen(picture, loaded.explainee.input_size))
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        step = -1
        while True:
            waiting = [news.get()]
            while not news.empty():  # a slow reader gets the newest
                waiting.append(news.get())
            step += len(waiting)
            last = waiting[-1]
            if isinstance(last, Stopped):
                return
            if isinstance(last, BaseException):
                raise last
            if not isinstance(last, Tensor):
                scores = {name: value.item() for name, value in last.scores.items()}
                mask = upsample(last.token_masks.cpu(), tuple(pixels.shape[-2:]))[0]
                yield Answer(pixels, mask, max(step - 1, 0), scores, last.warnings[0])
                return
            yield Answer(pixels, upsample(last[None], tuple(pixels.shape[-2:]))[0], step, {})
    finally:
        over.set()
        worker.join()


def methods_for(explainee: Explainee) -> list[str]:
    """Other methods that work for an explainee here; those that need no optional package come first."""
    there = []
    for name, baseline in BASELINES.items():
        if name in _NOT_OFFERED or (baseline.package and find_spec(baseline.package[0]) is None):
            continue
        try:
            baseline.applies(explainee)
        except UserError:
            continue
        there.append(name)
    return sorted(there, key=lambda name: BASELINES[name].package is not None)


def usual_methods(names: list[str]) -> list[str]:
    """The three that are compared unless others are chosen."""
    return [name for name in _USUAL if name in names][:3]


def compare(loaded: Loaded, picture: Image.Image, target: int, methods: list[str]) -> list[Image.Image]:
    """The picture under the map of each method.

    Raises:
        UserError: no such method or class.
    """
    known, n_classes = methods_for(loaded.explainee), loaded.explainee.num_classes
    wrong = next((name for name in methods if name not in known), None)
    if wrong is not None or not 0 <= target < n_classes:
        what = f"method '{wrong}'" if wrong is not None else f"class {target}"
        raise UserError(f"there is no {what} for '{loaded.explainee.name}'")
    # Methods hook into the network: on a copy, nobody else's passes run into their hooks.
    explainee = shared_copy(loaded.explainee)
    image = _input(explainee, picture)
    batch = Batch(image, torch.tensor([target], device=image.device), ["picture"])
    pixels, made = _pixels(seen(picture, explainee.input_size)), []
    for name in methods:
        values = (
            BASELINES[name].compute(explainee, batch, BaselineOptions(method=name)).detach().float().cpu()
        )
        low, high = values.min(), values.max()
        scaled = (values - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        made.append(to_image(overlay(pixels, upsample(scaled, tuple(pixels.shape[-2:]))[0].clamp(0, 1))))
    return made


def pack(answer: Answer, name: str, folder: Path) -> Path:
    """Write a picture's answer to a `.zip` file in a new folder of its own, and return its path."""
    folder.mkdir(parents=True)
    path = folder / f"ltx_{slug(name)[:40] or 'class'}.zip"
    values = BytesIO()
    np.save(values, answer.saliency.numpy())
    with zipfile.ZipFile(path, "w") as archive:
        for stem, picture in {"overlay": answer.overlay, "kept": answer.kept}.items():
            data = BytesIO()
            picture.save(data, format="PNG")
            archive.writestr(f"{stem}.png", data.getvalue())
        archive.writestr("saliency.npy", values.getvalue())
        archive.writestr("scores.json", json.dumps({"class": name, "step": answer.step} | answer.scores))
    return path


def _input(explainee: Explainee, picture: Image.Image) -> Tensor:
    """The picture (1, 3, H, W) as the scripts hand it to the explainee."""
    return to_tensor(picture, explainee.input_size)[None].to(explainee.mean.device)


def _pixels(picture: Image.Image) -> Tensor:
    return TF.to_dtype(TF.pil_to_tensor(picture), torch.float32, scale=True)
