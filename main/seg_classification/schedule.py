"""Length, steps and learning rates of pLTX pretraining."""

import math
from dataclasses import dataclass

from ltx.main.seg_classification.options import PretrainOptions

WARM_UP_SHARE = 5  # warm-up takes a fifth of the schedule


@dataclass(frozen=True)
class Plan:
    """Settings of one pretraining.

    Attributes:
        n_epochs: passes over the training images.
        batch_size: images per step.
        lr: peak of the schedule.
        weight_decay: of AdamW.
        schedule_images: images per epoch that the schedule is sized on (released: 50,000, whatever is used).
        by_target: train on the true class, else on the predicted one.
        score_class: "explained", "target" or "predicted", for the validation POS.
        seed: seed of the order of images.
        checkpoints: whether to save `last` and `best`.
        half: whether to store them in float16.
        save_every: steps between saves of the resumable state.
        num_workers: processes that read images.
        accumulate: parts of this process's share of a step, computed in turn.
        absent_weight: weight of the mask loss of absent classes, for a class-conditional explainer.
        augment: whether to train on random crops and mirror images.
        skip_bad: whether an unreadable image is left out of its step, or ends the training.
    """

    n_epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule_images: int
    by_target: bool
    score_class: str = PretrainOptions.score_class
    seed: int = PretrainOptions.seed
    checkpoints: bool = PretrainOptions.enable_checkpointing
    half: bool = PretrainOptions.half_checkpoints
    save_every: int = PretrainOptions.save_every
    num_workers: int = 0
    accumulate: int = PretrainOptions.accumulate
    absent_weight: float = PretrainOptions.absent_loss_mul
    augment: bool = PretrainOptions.augment
    skip_bad: bool = False

    def rate(self, step: int) -> float:
        """Learning rate of update `step` (from 0): linear warm-up over a fifth, then linear decay to 0."""
        total = max(1, self.schedule_images // self.batch_size) * self.n_epochs
        warm_up = max(1, total // WARM_UP_SHARE)
        share = step / warm_up if step < warm_up else max(0.0, (total - step) / max(1, total - warm_up))
        return self.lr * share

    def highest_rate(self, n_images: int) -> float:
        """The rate that training on `n_images` really reaches."""
        return max(self.rate(step) for step in range(math.ceil(n_images / self.batch_size) * self.n_epochs))
