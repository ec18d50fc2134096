"""pLTX: pretraining the explainer over a set of images (Barkan et al. 2023, stage one)."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.datasets.augment import crops_and_flips
from ltx.datasets.base import ImageSet
from ltx.datasets.build import BAD, groups
from ltx.main.common.devices import pins, to_device
from ltx.main.common.launch import World
from ltx.main.common.progress import progress_bar
from ltx.main.runs.run_folder import check_same_run
from ltx.main.runs.skipped import SKIPPED_FILE, write_list
from ltx.main.seg_classification.class_queries import answer_losses, draw_queries, random_rows
from ltx.main.seg_classification.schedule import Plan
from ltx.main.seg_classification.training_folder import STATE_FILE, claim, write_epochs
from ltx.main.seg_classification.validation import COUNTED, add_up, batch_figures, means
from ltx.models.checkpoints import load_state, save_state
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import save_explainer
from ltx.models.losses import Objective

log = logging.getLogger(__name__)

_CHECK_EVERY = 50  # steps between looks at the loss on CUDA, where each waits for the device


@dataclass
class Trainer:
    """Pretrains one explainer in one folder, and resumes where an earlier process stopped.

    Several processes share the images of each step and of the validation; the result is that of one process,
    and the first alone writes.

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
        world: the processes that train together.
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
    world: World = field(default_factory=World)

    def __post_init__(self):
        self.device = next(self.explainer.parameters()).device
        self.model = self.world.wrap(self.explainer)
        self.optimizer = torch.optim.AdamW(
            self.explainer.trainable().values(),
            lr=self.plan.lr,
            weight_decay=self.plan.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.epoch, self.batch, self.step = 0, 0, 0
        self.rows: list[dict] = []
        self.sums: dict[str, Tensor | float] = {}  # of this process, on the device: reading them would wait
        self.seconds = 0.0
        self.skipped: dict[str, str] = {}

    def run(self, on_epoch=lambda trainer, validation_batch: None) -> list[dict]:
        """Trains to the end and returns one row of figures per epoch.

        Args:
            on_epoch: called after each epoch with this trainer and the first validation batch (for pictures).

        Raises:
            UserError: the loss is no longer finite, the folder cannot be written, or another process trains
                in it.
        """
        with contextlib.ExitStack() as claims:
            self.world.first(lambda: self.world.is_main and claims.enter_context(claim(self.folder)))
            self._resume()
            while self.epoch < self.plan.n_epochs:
                self._train_epoch()
                row, first = self.validate()
                self._end_epoch(row)
                if self.world.is_main:
                    on_epoch(self, first)
                self._save_state()  # the last: what is written before it is written again after a kill
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
        steps = order.split(self.plan.batch_size)
        shares = [self._share(step.tolist()) for step in steps[self.batch :]]
        started = time.monotonic() - self.seconds
        loader = groups(
            self.images,
            [[self.train[i] for i in share] for share, _ in shares],
            self.plan.num_workers,
            pins(self.device),
            self.plan.skip_bad,
        )
        bar = progress_bar(
            loader, f"epoch {self.epoch}", total=len(steps), initial=self.batch, unit="batch",
            disable=not self.world.is_main,
        )  # fmt: skip
        for data, (_, counts), step in zip(bar, shares, steps[self.batch :], strict=True):
            self._train_step(data, len(step), counts)
            self.batch += 1
            self.step += 1
            self.seconds = time.monotonic() - started
            if self.batch % self.plan.save_every == 0 and self.batch < len(steps):
                self._save_state()
        self._check_finite()

    def _share(self, step: list[int]) -> tuple[list[int], bool]:
        """This process's images of a step. A process that would have none takes one that does not count."""
        share = step[self.world.rank :: self.world.size]
        return (share, True) if share else (step[:1], False)

    def _train_step(self, data: dict[str, Tensor], n: int, counts: bool) -> None:
        """One AdamW step on the mean loss of `n` images, of which this process has `data`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        self.optimizer.zero_grad()
        images = to_device(data["image"], self.device)
        if self.plan.augment:
            images = crops_and_flips(images, self._seeds(data["index"]))
        counting = self._read(self.images, data) * counts
        size = math.ceil(len(images) / self.plan.accumulate)
        known = torch.stack([data[key] for key in ("label", "second_label") if key in data], 1)
        splits = (values.split(size) for values in (images, known, data["index"], counting))
        parts = list(zip(*splits, strict=True))
        for i, (some, classes, index, counted) in enumerate(parts):
            last = i == len(parts) - 1
            with contextlib.nullcontext() if last or self.world.size == 1 else self.model.no_sync():
                self._backward(some, classes, index, counted, n)
        self.optimizer.step()

    def _seeds(self, index: Tensor) -> list[tuple[int, int, int]]:
        """Seed of each image's random draws in this step."""
        return [(self.plan.seed, self.step, i) for i in index.tolist()]

    def _read(self, images: ImageSet, data: dict) -> Tensor:
        """(B,) 1.0 for each image of a batch that could be read, 0.0 for the others, which are noted."""
        reasons = data.get(BAD, [""] * len(data["index"]))
        for index, why in zip(data["index"].tolist(), reasons, strict=True):
            if why and images.names[index] not in self.skipped:
                log.warning("skipped %s: %s", images.names[index], why)
                self.skipped[images.names[index]] = why
        return torch.tensor([0.0 if why else 1.0 for why in reasons], device=self.device)

    def _losses(self, images: Tensor, known: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Losses (B,) of images, their true classes (B, L), -1 for none, and positions (B,) in their set."""
        if not self.explainer.class_conditional:
            classes = self.classes_of(images, known[:, 0])
            return self.objective(self.explainee, images, self.model(images), classes, self.step)
        chance = random_rows(self._seeds(index), self.explainee.num_classes)
        known = known if self.plan.by_target else None
        queries = draw_queries(self.explainee, images, known, chance)
        return answer_losses(
            self.model, self.explainee, self.objective, images, queries, self.plan.absent_weight, self.step
        )

    def _backward(self, images: Tensor, known: Tensor, index: Tensor, counting: Tensor, n: int) -> None:
        """Add the gradient of the images' share of the loss; those that do not count are black and add 0."""
        losses = self._losses(images, known, index)
        add_up(self.sums, losses, counting)
        if self.device.type != "cuda" or self.batch % _CHECK_EVERY == 0:
            self._check_finite()
        # The gradients are averaged over the processes, so the mean over all images is this.
        ((losses["loss"] * counting).sum() / n * self.world.size).backward()

    def _check_finite(self) -> None:
        """Raise `UserError` where the loss has become NaN or infinite; waits for the device."""
        self._stop_unless(math.isfinite(float(self.sums.get("loss", 0.0))), "the loss is")

    def _stop_unless(self, finite: bool, what: str) -> None:
        if not finite:
            raise UserError(f"{what} not finite at step {self.step}; try a lower --lr or --mask-loss-mul")

    @torch.no_grad()
    def validate(self) -> tuple[dict[str, float], dict[str, Tensor] | None]:
        """Validation means (losses, `mask_area`, `POS`), and the first batch with its masks.

        Of a class-conditional explainer also `improbable_area`, the mask of the least likely class.
        """
        sums, first = {}, None
        cut = [
            list(self.val[i : i + self.plan.batch_size])
            for i in range(0, len(self.val), self.plan.batch_size)
        ]
        mine = cut[self.world.rank :: self.world.size]
        loader = groups(self.val_images, mine, self.plan.num_workers, pins(self.device), self.plan.skip_bad)
        for data in loader:
            counting = self._read(self.val_images, data)
            images, labels = (to_device(data[key], self.device) for key in ("image", "label"))
            classes = self.classes_of(images, labels)
            figures, maps = batch_figures(
                self.explainer, self.explainee, self.objective, images, labels, classes, self.plan.score_class
            )
            add_up(sums, figures, counting)
            first = first or {"images": images.cpu(), "maps": maps.cpu()}
        return means(self._all_sums(sums), "validation"), first

    def _end_epoch(self, validation: dict[str, float]) -> None:
        sums = self._all_sums(self.sums)
        row = {"epoch": self.epoch, "step": self.step, "lr": self.plan.rate(self.step - 1)}
        row |= {f"train_{name}": mean for name, mean in means(sums, "training").items()}
        self._stop_unless(all(map(math.isfinite, validation.values())), "the validation's figures are")
        row |= {f"val_{name}": value for name, value in validation.items()} | {"seconds": self.seconds}
        is_best = all(row["val_POS"] < earlier["val_POS"] for earlier in self.rows)
        self.rows.append(row)
        self.epoch, self.batch, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0
        if self.world.is_main:
            if self.plan.checkpoints:
                for name in ("last", "best") if is_best else ("last",):
                    self._save_weights(name)
            write_epochs(self.folder, self.rows)
        self._write_skipped()
        log.info("%s", json.dumps(row))

    def _all_sums(self, sums: dict[str, Tensor | float]) -> dict[str, float]:
        """Sums over all processes, as plain numbers."""
        return self.world.add_up({name: float(value) for name, value in sums.items()})

    def _save_weights(self, name: str) -> None:
        row = self.rows[-1]
        facts = self.metadata | {"epoch": row["epoch"], "global_step": self.step, "val_POS": row["val_POS"]}
        optimizer = {"optimizer": self.optimizer.state_dict(), "global_step": self.step}
        save_state(self.folder / f"{name}.pt", optimizer)
        path = self.folder / f"{name}.safetensors"
        save_explainer(path, self.explainer, self.explainee.name, facts, self.plan.half)

    def _write_skipped(self) -> None:
        """Write the images that any of the processes could not read, where there are any."""
        found = {name: why for some in self.world.gather(self.skipped) for name, why in some.items()}
        if found and self.world.is_main:
            self.skipped = found
            write_list(self.folder / SKIPPED_FILE, dict(sorted(found.items())))

    def _save_state(self) -> None:
        self._check_finite()
        weights = self.explainer.trainable().values()
        self._stop_unless(all(bool(one.isfinite().all()) for one in weights), "the explainer's weights are")
        sums = self._all_sums(self.sums)
        if not self.world.is_main:
            return
        state = {"explainer": self.explainer.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"epoch": self.epoch, "batch": self.batch, "step": self.step, "rows": self.rows}
        state |= {"run_hash": self.metadata.get("run_hash"), "skipped": self.skipped}
        save_state(self.folder / STATE_FILE, state | {"sums": sums, "seconds": self.seconds})

    def _resume(self) -> None:
        path = self.folder / STATE_FILE
        if not path.is_file():
            return
        state = load_state(path)
        if None not in (state.get("run_hash"), self.metadata.get("run_hash")):
            check_same_run(state["run_hash"], self.metadata["run_hash"], path)
        self.explainer.load_state_dict(state["explainer"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("epoch", "batch", "step", "rows", "sums", "seconds"):
            setattr(self, name, state[name])
        self.skipped = state.get("skipped", {})
        if self.sums:  # of a state that was saved before images could be skipped
            self.sums.setdefault(COUNTED, float(min(self.batch * self.plan.batch_size, len(self.train))))
        if not self.world.is_main:
            self.sums = {}  # the first process has them all
        log.info("resuming at epoch %d, batch %d", self.epoch, self.batch)
