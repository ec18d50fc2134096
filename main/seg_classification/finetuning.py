"""LTX: finetuning the explainer on each single image, many images side by side.

From the pLTX weights, N steps on one image with the training objective. That gives N masks, after 0 ... N-1
updates; four of them are kept: `pltx` (the first), `last`, `best_loss` (lowest loss) and `best_pos` or
`best_neg` (best perturbation AUC, which selects on what is then reported). Results do not depend on how many
images run side by side, nor on their order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from main.perturbation_eval.curves import read_class
from main.seg_classification.scoring import StepScorer
from main.seg_classification.stacked import StackedExplainer
from models.explainer import Explainer
from models.losses import Objective
from models.masking import upsample


@dataclass(frozen=True)
class Settings:
    """How images are finetuned.

    Attributes:
        n_steps: masks per image (N); N - 1 updates.
        lr: constant rate.
        optimize_by_pos: keep the lowest POS, else the highest NEG.
        early_stop: end an image at POS under 6 or NEG over 89; only `pltx` and the best are kept (released).
        slots: images side by side.
        scoring_batch: images that go through the explainee at once while scoring.
        shortcuts: skip the scoring that cannot change the selection.
        select: score the steps; False leaves the best by POS or NEG out, and saves most of the time.
        schedule: rate by update instead of `lr`.
        moments: optimiser state to start from, see `StackedExplainer`.
        use_vmap: see `StackedExplainer`.
    """

    n_steps: int = 25
    lr: float = 5e-5
    optimize_by_pos: bool = True
    early_stop: bool = False
    slots: int = 16
    scoring_batch: int = 64
    shortcuts: bool = True
    select: bool = True
    schedule: Callable[[int], float] | None = None
    moments: dict | None = None
    use_vmap: bool | None = None

    @property
    def best_name(self) -> str:
        """Variant that the perturbation AUC selects."""
        return "best_pos" if self.optimize_by_pos else "best_neg"


class _Record:
    """Masks and figures of n images, filled step by step."""

    def __init__(self, n: int, grid: tuple[int, int], settings: Settings, device):
        names = ["pltx", settings.best_name] if settings.select else ["pltx"]
        names += [] if settings.early_stop else ["last", "best_loss"]
        self.settings = settings
        self.masks = {name: torch.zeros(n, *grid, device=device) for name in names}
        self.loss = torch.full((n, settings.n_steps), torch.nan, device=device)
        self.auc = torch.full((n, settings.n_steps), torch.nan, device=device)
        self.lowest = torch.full((n,), torch.inf, device=device)
        self.best_step = torch.zeros(n, dtype=torch.long, device=device)

    def add(
        self, rows: Tensor, step: Tensor, masks: Tensor, losses: Tensor, better: Tensor, aucs: Tensor
    ) -> None:
        self.loss[rows, step], self.auc[rows, step] = losses, aucs.float()
        self._keep("pltx", rows, step == 0, masks)
        self._keep(self.settings.best_name, rows, better, masks)
        self.best_step[rows] = torch.where(better, step, self.best_step[rows])
        if not self.settings.early_stop:
            self._keep("last", rows, step == self.settings.n_steps - 1, masks)
            lower = losses < self.lowest[rows]
            self.lowest[rows] = torch.where(lower, losses, self.lowest[rows])
            self._keep("best_loss", rows, lower, masks)

    def _keep(self, name: str, rows: Tensor, which: Tensor, masks: Tensor) -> None:
        if name not in self.masks:
            return
        self.masks[name][rows] = torch.where(which[:, None, None], masks, self.masks[name][rows])


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
        neither AUC nor `best_step`.
    """
    device, n = images.device, len(images)
    correct = torch.cat(
        [
            read_class(explainee, x, c)[1]
            for x, c in zip(
                images.split(settings.scoring_batch), scored.split(settings.scoring_batch), strict=True
            )
        ]
    )
    scorer = StepScorer(
        explainee, correct, settings.optimize_by_pos, settings.shortcuts, settings.scoring_batch
    )
    if not settings.select:
        scorer.stopped.fill_(True)  # what has stopped is not scored
    n_slots = min(settings.slots, n)
    stack = StackedExplainer(
        explainer, n_slots, settings.lr, schedule=settings.schedule, moments=settings.moments,
        use_vmap=settings.use_vmap,
    )  # fmt: skip
    record = _Record(n, explainer.grid, settings, device)
    steps_taken = torch.zeros(n, dtype=torch.long)
    waiting = list(range(n))[::-1]
    image_of = {slot: waiting.pop() for slot in range(n_slots)}
    while image_of:
        slots = list(image_of)
        numbers = [image_of[slot] for slot in slots]
        rows = torch.tensor(numbers, device=device)
        step = steps_taken[numbers].to(device)
        masks = stack.token_masks(images[rows], slots, classes[rows])
        losses = objective(explainee, images[rows], masks, classes[rows])["loss"]
        maps = upsample(masks.detach(), images.shape[-2:])[:, 0]
        better, aucs = scorer.score(rows, images[rows], maps, scored[rows])
        record.add(rows, step, masks.detach()[:, 0], losses.detach(), better, aucs)
        steps_taken[numbers] += 1
        ended = (steps_taken[numbers] >= settings.n_steps).tolist()
        if settings.early_stop:
            ended = [end or stop for end, stop in zip(ended, scorer.stopped[rows].tolist(), strict=True)]
        if not all(ended):
            stack.update(losses, slots)
        for slot, end in zip(slots, ended, strict=True):
            if end:
                progress(1)
                stack.reset(slot)
                if waiting:
                    image_of[slot] = waiting.pop()
                else:
                    del image_of[slot]
    name = "pos_auc" if settings.optimize_by_pos else "neg_auc"
    figures = {"loss": record.loss, "steps": steps_taken}
    if settings.select:
        figures |= {name: record.auc, "best_step": record.best_step}
    return record.masks, figures


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
