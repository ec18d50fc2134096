"""pLTX: pretraining the explainer over a set of images (Barkan et al. 2023, stage one)."""

import csv
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from config import UserError
from datasets.base import ImageSet
from datasets.build import batches
from main.perturbation_eval.curves import auc, read_class, removal_curve
from main.seg_classification.questions import answer_losses, draw_questions, improbable_area
from models.checkpoints import load_state, replace_file, save_state
from models.explainee import Explainee
from models.explainer import Explainer
from models.explainer_files import save_explainer
from models.losses import Objective
from models.masking import upsample

log = logging.getLogger(__name__)

WARM_UP_SHARE = 5  # warm-up takes a fifth of the schedule
STATE_FILE, EPOCHS_FILE = "state.pt", "epochs.csv"


@dataclass(frozen=True)
class Plan:
    """How an explainer is pretrained.

    Attributes:
        n_epochs: passes over the training images.
        batch_size: images per step.
        lr: peak of the schedule.
        weight_decay: of AdamW.
        schedule_images: images per epoch that the schedule is sized on (released: 50,000, whatever is used).
        by_target: train on the true class, else on the predicted one.
        score_class: "explained", "target" or "predicted", for the validation POS.
        seed: of the order of images.
        checkpoints: keep `last` and `best`.
        half: store them in float16.
        save_every: steps between saves of the resumable state.
        num_workers: processes that read images.
    """

    n_epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule_images: int
    by_target: bool
    score_class: str = "explained"
    seed: int = 42
    checkpoints: bool = True
    half: bool = False
    save_every: int = 200
    num_workers: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of update `step` (from 0): linear warm-up over a fifth, then linear decay to 0."""
        total = max(1, self.schedule_images // self.batch_size) * self.n_epochs
        warm_up = max(1, total // WARM_UP_SHARE)
        share = step / warm_up if step < warm_up else max(0.0, (total - step) / max(1, total - warm_up))
        return self.lr * share

    def highest_rate(self, n_images: int) -> float:
        """The rate that training on `n_images` really reaches."""
        return max(self.rate(step) for step in range(math.ceil(n_images / self.batch_size) * self.n_epochs))


@dataclass
class Trainer:
    """Pretrains one explainer in one folder, and goes on where an earlier process stopped.

    Attributes:
        explainer: on the device; changed in place.
        explainee: on the device.
        objective: the loss.
        images: image set that both lists of positions refer to (or `val_images` for the second).
        train: positions of the training images.
        val_images: image set of the validation images.
        val: positions of the validation images.
        plan: schedule and sizes.
        folder: the training run's folder.
        metadata: stored in each checkpoint.
    """

    explainer: Explainer
    explainee: Explainee
    objective: Objective
    images: ImageSet
    train: Sequence[int]
    val_images: ImageSet
    val: Sequence[int]
    plan: Plan
    folder: Path
    metadata: dict = field(default_factory=dict)

    def __post_init__(self):
        parameters = self.explainer.trainable().values()
        self.device = next(self.explainer.parameters()).device
        self.optimizer = torch.optim.AdamW(parameters, lr=self.plan.lr, weight_decay=self.plan.weight_decay)
        self.epoch, self.batch, self.step = 0, 0, 0
        self.rows: list[dict] = []
        self.sums: dict[str, float] = {}
        self.seconds = 0.0

    def run(self, on_epoch=lambda trainer, validation_batch: None) -> list[dict]:
        """Trains to the end and returns one row of figures per epoch.

        Args:
            on_epoch: called after each epoch with this trainer and the first validation batch (for pictures).
        """
        self._resume()
        while self.epoch < self.plan.n_epochs:
            self._train_epoch()
            row, first = self.validate()
            self._end_epoch(row)
            on_epoch(self, first)
        return self.rows

    def classes_of(self, images: Tensor, labels: Tensor) -> Tensor:
        """(B,) class that each mask explains."""
        if self.plan.by_target:
            return labels.to(self.device)
        with torch.no_grad():
            return self.explainee(images).argmax(1)

    def _train_epoch(self) -> None:
        order = torch.randperm(
            len(self.train), generator=torch.Generator().manual_seed(self.plan.seed + self.epoch)
        )
        todo = [self.train[i] for i in order[self.batch * self.plan.batch_size :].tolist()]
        n_batches = math.ceil(len(self.train) / self.plan.batch_size)
        started = time.monotonic() - self.seconds
        loader = batches(self.images, todo, self.plan.batch_size, self.plan.num_workers)
        for data in tqdm(
            loader, desc=f"epoch {self.epoch}", initial=self.batch, total=n_batches, unit="batch"
        ):
            losses = self._train_batch(data["image"].to(self.device), data)
            for name, values in losses.items():
                self.sums[name] = self.sums.get(name, 0.0) + values.sum().item()
            self.batch += 1
            self.step += 1
            self.seconds = time.monotonic() - started
            if self.batch % self.plan.save_every == 0 and self.batch < n_batches:
                self._save_state()

    def _losses(self, images: Tensor, data: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.explainer.class_conditional:
            known = [data[key] for key in ("label", "second_label") if key in data]
            known = torch.stack(known, 1) if self.plan.by_target else None
            generator = torch.Generator().manual_seed(self.plan.seed + self.step)
            questions = draw_questions(self.explainee, images, known, generator)
            return answer_losses(self.explainer, self.explainee, self.objective, images, questions)
        classes = self.classes_of(images, data["label"])
        return self.objective(self.explainee, images, self.explainer(images), classes)

    def _train_batch(self, images: Tensor, data: dict[str, Tensor]) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        losses = self._losses(images, data)
        mean = losses["loss"].mean()
        if not torch.isfinite(mean):
            raise UserError(
                f"the loss is not finite at step {self.step}; try a lower --lr or --mask-loss-mul"
            )
        self.optimizer.zero_grad()
        mean.backward()
        self.optimizer.step()
        return {name: values.detach() for name, values in losses.items()}

    @torch.no_grad()
    def validate(self) -> tuple[dict[str, float], dict[str, Tensor] | None]:
        """Validation means (losses, `mask_area`, `POS`), and the first batch with its masks.

        Of a class-conditional explainer also `improbable_area`, the mask of the least likely class.
        """
        sums, first = {}, None
        for data in batches(self.val_images, self.val, self.plan.batch_size, self.plan.num_workers):
            images, labels = data["image"].to(self.device), data["label"].to(self.device)
            classes = self.classes_of(images, labels)
            masks = self.explainer(images, classes)
            losses = self.objective(self.explainee, images, masks, classes)
            maps = upsample(masks, images.shape[-2:])[:, 0]
            scored = {"explained": classes, "target": labels}.get(self.plan.score_class)
            scored = self.explainee(images).argmax(1) if scored is None else scored
            unmasked = read_class(self.explainee, images, scored)
            curve = removal_curve(self.explainee, images, maps, scored, True, unmasked)[1]
            figures = losses | {"mask_area": masks.mean((1, 2, 3)), "POS": auc(curve)}
            if self.explainer.class_conditional:
                figures["improbable_area"] = improbable_area(self.explainer, self.explainee, images)
            for name, values in figures.items():
                sums[name] = sums.get(name, 0.0) + values.sum().item()
            first = first or {"images": images.cpu(), "maps": maps.cpu()}
        return {name: total / len(self.val) for name, total in sums.items()}, first

    def _end_epoch(self, validation: dict[str, float]) -> None:
        means = {f"train_{name}": total / len(self.train) for name, total in self.sums.items()}
        row = {"epoch": self.epoch, "step": self.step, "lr": self.plan.rate(self.step - 1)} | means
        row |= {f"val_{name}": value for name, value in validation.items()} | {"seconds": self.seconds}
        is_best = all(row["val_POS"] < earlier["val_POS"] for earlier in self.rows)
        self.rows.append(row)
        self.epoch, self.batch, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0
        if self.plan.checkpoints:
            self._save_weights("last")
            if is_best:
                self._save_weights("best")
        self._write_epochs()
        self._save_state()
        log.info("%s", json.dumps(row))

    def _save_weights(self, name: str) -> None:
        row = self.rows[-1]
        facts = self.metadata | {"epoch": row["epoch"], "global_step": self.step, "val_POS": row["val_POS"]}
        optimizer = {"optimizer": self.optimizer.state_dict(), "global_step": self.step}
        save_state(self.folder / f"{name}.pt", optimizer)
        save_explainer(
            self.folder / f"{name}.safetensors", self.explainer, self.explainee.name, facts, self.plan.half
        )

    def _write_epochs(self) -> None:
        def write(temporary):
            with open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, list(self.rows[0]))
                writer.writeheader()
                writer.writerows(
                    {k: round(v, 6) if isinstance(v, float) else v for k, v in r.items()} for r in self.rows
                )

        replace_file(self.folder / EPOCHS_FILE, write)

    def _save_state(self) -> None:
        state = {"explainer": self.explainer.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"epoch": self.epoch, "batch": self.batch, "step": self.step, "rows": self.rows}
        save_state(self.folder / STATE_FILE, state | {"sums": self.sums, "seconds": self.seconds})

    def _resume(self) -> None:
        path = self.folder / STATE_FILE
        if not path.is_file():
            return
        state = load_state(path)
        self.explainer.load_state_dict(state["explainer"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("epoch", "batch", "step", "rows", "sums", "seconds"):
            setattr(self, name, state[name])
        log.info("going on at epoch %d, batch %d", self.epoch, self.batch)
