"""LTX: finetuning the explainer on each single image, many images side by side.

From the pLTX weights, N steps on one image with the training objective. That gives N masks, after 0 ... N-1
updates; four of them are kept: `pltx` (the first), `last`, `best_loss` (lowest loss) and `best_pos` or
`best_neg` (best perturbation AUC, which selects on what is then reported). Results do not depend on how many
images run side by side, nor on their order.

An image ends at the first step whose loss or mask is NaN or infinite: its masks are those of the steps before
(NaN where there are none), and `not_finite_from` names the step. The other images know nothing of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ltx.main.common.devices import default_batch
from ltx.main.runs.mask_files import NOT_FINITE
from ltx.main.seg_classification.stacked_explainer import StackedExplainer
from ltx.main.seg_classification.step_scorer import StepScorer
from ltx.models.explainee import read_class
from ltx.models.explainer import Explainer
from ltx.models.kinks import round_pair
from ltx.models.losses import Objective
from ltx.models.masking import upsample


@dataclass(frozen=True)
class Settings:
    """Settings of the finetuning of images.

    Attributes:
        n_steps: masks per image (N); N - 1 updates.
        lr: constant rate; with `decay` the peak of `decaying`.
        decay: let the rate fall to 0.
        kink_width: of both networks' ReLUs in the backward pass, see `models.kinks`; 0 leaves the kinks.
        optimize_by_pos: keep the lowest POS, else the highest NEG.
        early_stop: end an image at POS under 6 or NEG over 89; only `pltx` and the best are kept (released).
        slots: images side by side.
        scoring_batch: images that go through the explainee at once while scoring (default: by device).
        shortcuts: skip the scoring that cannot change the selection.
        select: score the steps; False leaves the best by POS or NEG out, and saves most of the time.
        schedule: rate by update instead of `lr`.
        moments: optimiser state to start from, see `StackedExplainer`.
        use_vmap: see `StackedExplainer`.
        stop_scoring: see `StepScorer`; False only to measure.
    """

    n_steps: int
    lr: float
    decay: bool = False
    kink_width: float = 0.0
    optimize_by_pos: bool = True
    early_stop: bool = False
    slots: int = 16
    scoring_batch: int | None = None
    shortcuts: bool = True
    select: bool = True
    schedule: Callable[[int], float] | None = None
    moments: dict | None = None
    use_vmap: bool | None = None
    stop_scoring: bool = True

    @property
    def best_name(self) -> str:
        """Variant that the perturbation AUC selects."""
        return "best_pos" if self.optimize_by_pos else "best_neg"

    @property
    def rates(self) -> Callable[[int], float] | None:
        """Rate by update, None for a constant one."""
        return decaying(self.lr, self.n_steps - 1) if self.decay else self.schedule


def decaying(peak: float, n_updates: int) -> Callable[[int], float]:
    """Rate by update: half the peak, then the peak, then down a cosine to nearly 0."""

    def rate(update: int) -> float:
        if update == 0:
            return peak / 2
        return peak * (1 + math.cos(math.pi * (update - 1) / max(n_updates - 1, 1))) / 2

    return rate


class _Record:
    """Masks and figures of n images, filled step by step."""

    def __init__(self, n: int, grid: tuple[int, int], settings: Settings, device):
        names = ["pltx", settings.best_name] if settings.select else ["pltx"]
        names += [] if settings.early_stop else ["last", "best_loss"]
        self.settings = settings
        self.masks = {
            name: torch.full((n, *grid), torch.nan, device=device, dtype=torch.float32) for name in names
        }
        # Never read by the host: on CUDA that would wait for the device.
        self.not_finite_from = torch.full((n,), -1, dtype=torch.long, device=device)
        self.loss = torch.full((n, settings.n_steps), torch.nan, device=device, dtype=torch.float32)
        self.auc = torch.full_like(self.loss, torch.nan)
        self.lowest = torch.full((n,), torch.inf, device=device, dtype=torch.float32)
        self.best_step = torch.zeros(n, dtype=torch.long, device=device)
        self.steps = torch.zeros(n, dtype=torch.long, device=device)

    def add(
        self, rows: Tensor, masks: Tensor, losses: Tensor, better: Tensor | None, aucs: Tensor | None
    ) -> None:
        """The next step of some images: masks (B, h, w), losses (B,), and what the scorer says."""
        step = self.steps[rows]
        finite = losses.isfinite() & masks.flatten(1).isfinite().all(1)
        since = self.not_finite_from[rows]
        since = torch.where((since < 0) & ~finite, step, since)
        self.not_finite_from[rows], alive = since, since < 0
        self.loss[rows, step] = torch.where(alive, losses, torch.nan)
        self._keep("pltx", rows, alive & (step == 0), masks)
        if better is not None:
            better = better & alive
            self.auc[rows, step] = torch.where(alive, aucs.float(), torch.nan)
            self._keep(self.settings.best_name, rows, better, masks)
            self.best_step[rows] = torch.where(better, step, self.best_step[rows])
        if not self.settings.early_stop:
            self._keep("last", rows, alive, masks)
            lower = alive & (losses < self.lowest[rows])
            self.lowest[rows] = torch.where(lower, losses, self.lowest[rows])
            self._keep("best_loss", rows, lower, masks)
        self.steps[rows] = step + 1

    def _keep(self, name: str, rows: Tensor, which: Tensor, masks: Tensor) -> None:
        self.masks[name][rows] = torch.where(which[:, None, None], masks, self.masks[name][rows])

    def figures(self) -> dict[str, Tensor]:
        """The figures that `finetune` returns."""
        steps = torch.where(self.not_finite_from < 0, self.steps, self.not_finite_from)
        figures = {"loss": self.loss, "steps": steps, NOT_FINITE: self.not_finite_from}
        if self.settings.select:
            name = "pos_auc" if self.settings.optimize_by_pos else "neg_auc"
            figures |= {name: self.auc, "best_step": self.best_step}
        return figures


class _Queue:
    """The image in each slot; kept on the host, so that the device is never asked."""

    def __init__(self, n: int, n_slots: int, n_steps: int):
        self.n_steps = n_steps
        self._waiting = list(range(n))[::-1]
        self._image = {slot: self._waiting.pop() for slot in range(n_slots)}
        self._taken = dict.fromkeys(self._image, 0)

    def __bool__(self) -> bool:
        return bool(self._image)

    @property
    def slots(self) -> list[int]:
        """The slots that hold an image."""
        return list(self._image)

    @property
    def images(self) -> list[int]:
        """The image of each of them."""
        return list(self._image.values())

    def step(self, stopped: list[bool] | None) -> list[int]:
        """Count a step of all; returns the slots whose image has ended by its steps or has stopped."""
        stopped = stopped or [False] * len(self._image)
        for slot in self._image:
            self._taken[slot] += 1
        return [
            slot
            for slot, stop in zip(self._image, stopped, strict=True)
            if stop or self._taken[slot] >= self.n_steps
        ]

    def refill(self, ended: list[int]) -> bool:
        """Give ended slots the next images; whether anything changed."""
        for slot in ended:
            self._taken[slot] = 0
            if self._waiting:
                self._image[slot] = self._waiting.pop()
            else:
                del self._image[slot]
        return bool(ended)


def _scorer(explainee, images: Tensor, scored: Tensor, settings: Settings) -> StepScorer:
    """Scorer of all images, each read once unmasked."""
    size = settings.scoring_batch or default_batch(images.device)
    parts = zip(images.split(size), scored.split(size), strict=True)
    correct = torch.cat([read_class(explainee, pixels, classes)[1] for pixels, classes in parts])
    return StepScorer(
        explainee, correct, settings.optimize_by_pos, settings.shortcuts, size, settings.stop_scoring
    )


def _losses(
    objective: Objective,
    explainee,
    pixels: Tensor,
    masks: Tensor,
    classes: Tensor,
    step: Tensor,
    one_by_one: bool,
) -> Tensor:
    """Loss of each slot, (B,); `one_by_one` where the explainer runs slot by slot too.

    Convolutions round differently in batches of different sizes, and AdamW's first steps blow that up.
    """
    if not one_by_one:
        return objective(explainee, pixels, masks, classes, step)["loss"]
    parts = (values.split(1) for values in (pixels, masks, classes, step))
    return torch.cat([objective(explainee, *part)["loss"] for part in zip(*parts, strict=True)])


def finetune(
    explainer: Explainer,
    explainee,
    images: Tensor,
    classes: Tensor,
    scored: Tensor,
    objective: Objective,
    settings: Settings,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """LTX masks of images.

    Args:
        explainer: pLTX explainer; its weights are not changed.
        explainee: images to logits.
        images: (n, 3, H, W) in [0, 1].
        classes: (n,) class that each mask explains.
        scored: (n,) class whose POS or NEG selects.
        objective: the loss.
        settings: steps, rate, slots, ...
        progress: called with the number of images that have just been finished.

    Returns:
        Token masks (n, h, w) by variant, and `loss` and AUC (n, N) by step (`pos_auc` or `neg_auc`, NaN where
        a step was not scored because it could not win), `best_step` and `steps` (n,); without `select`
        neither AUC nor `best_step`; `not_finite_from` (n,), -1 where all was finite.
    """
    device, n = images.device, len(images)
    explainer, seen = round_pair(explainer, explainee, settings.kink_width)
    scorer = _scorer(explainee, images, scored, settings) if settings.select else None
    n_slots = min(settings.slots, n)
    stack = StackedExplainer(
        explainer, n_slots, settings.lr, schedule=settings.rates, moments=settings.moments,
        use_vmap=settings.use_vmap,
    )  # fmt: skip
    record = _Record(n, explainer.grid, settings, device)
    queue = _Queue(n, n_slots, settings.n_steps)
    while queue:
        # Chosen anew only where the images in the slots change: indices wait for the device on CUDA.
        rows = torch.tensor(queue.images, device=device)
        pixels, asked, read = images[rows], classes[rows], scored[rows]
        changed = False
        while not changed:
            masks = stack.token_masks(pixels, queue.slots, asked)
            losses = _losses(objective, seen, pixels, masks, asked, record.steps[rows], not stack.use_vmap)
            tokens, better, aucs = masks.detach()[:, 0], None, None
            if scorer is not None:
                better, aucs = scorer.score(rows, pixels, upsample(tokens, pixels.shape[-2:]), read)
            record.add(rows, tokens, losses.detach(), better, aucs)
            stopped = scorer.stopped[rows].tolist() if settings.early_stop and scorer else None
            ended = queue.step(stopped)
            if len(ended) < len(queue.slots):
                stack.update(losses, queue.slots)
            for slot in ended:
                progress(1)
                stack.reset(slot)
            changed = queue.refill(ended)
    return record.masks, record.figures()


@torch.no_grad()
def pltx(
    explainer: Explainer, images: Tensor, classes: Tensor | None = None, batch_size: int = 64
) -> dict[str, Tensor]:
    """pLTX masks (n, h, w) of images (n, 3, H, W): one forward pass, step 0.

    Args:
        explainer: makes the masks.
        images: in [0, 1].
        classes: (n,) class asked about, for a class-conditional explainer.
        batch_size: images at once.
    """
    asked = (images,) if classes is None else (images, classes)
    parts = zip(*(values.split(batch_size) for values in asked), strict=True)
    return {"pltx": torch.cat([explainer(*part)[:, 0] for part in parts])}
