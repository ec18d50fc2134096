"""POS or NEG of every finetuning step of many images at once, skipping what cannot win.

The AUC (accuracy version, see `perturbation_eval.curves`) of one image is a sum of ten readings of 0 or 1:
5 * (c0 + 2 * (c1 + ... + c8) + c9). It is kept as that integer, so comparisons are exact.
"""

import hashlib

import torch
from torch import Tensor

from ltx.main.perturbation_eval.curves import N_STEPS, removal_steps, remove
from ltx.models.explainee import read_class

_UNIT = 5.0  # AUC of one integer point
# Removal steps that go through the explainee together: few at first, since most steps lose at once.
_ROUNDS = (slice(0, 1), slice(1, 3), slice(3, 6), slice(6, N_STEPS - 1))
STOP_POS, STOP_NEG = 6.0, 89.0


class StepScorer:
    """Scores the maps of successive steps of images and knows the best of each; better is strict.

    After POS under 6 or NEG over 89 nothing more of an image is scored (released).

    Savings that change nothing: the reading at step 0 is taken once; the perturbed images of all images go
    through the explainee as one batch; an image's scoring ends as soon as its partial AUC cannot beat its
    best (POS from the first pixels on, NEG from the last ones back); pixel sets seen before are not scored
    again. To leave images out, the host must know which: on CUDA that waits for the device, so without
    shortcuts nothing is left out there.

    Args:
        explainee: images to logits.
        unmasked_correct: (N,) 1.0 where the scored class is on top of the unmasked image.
        by_pos: lowest POS wins, else highest NEG.
        shortcuts: False scores every step in full, up to an image's stop.
        batch_size: images that go through the explainee at once.
        stop: whether an image's scoring stops as above; False only to measure.
    """

    def __init__(
        self, explainee, unmasked_correct: Tensor, by_pos: bool, shortcuts: bool = True, batch_size: int = 64,
        stop: bool = True,
    ):  # fmt: skip
        self.explainee, self.by_pos, self.batch_size = explainee, by_pos, batch_size
        self.shortcuts, self.stop = shortcuts, stop
        self.unmasked = unmasked_correct.long()
        self.leaves_out = shortcuts or not self.unmasked.is_cuda
        worst = 2 * N_STEPS if by_pos else -1
        self.best = torch.full_like(self.unmasked, worst)
        self.stopped = torch.zeros_like(self.unmasked, dtype=torch.bool)
        self._order = list(range(1, N_STEPS)) if by_pos else list(range(N_STEPS - 1, 0, -1))
        device = self.unmasked.device
        self._steps = torch.tensor(self._order, dtype=torch.uint8, device=device)
        self._weights = torch.tensor([_weight(step) for step in self._order], device=device)
        self._seen = [set() for _ in range(len(self.unmasked))]

    def score(self, rows: Tensor, images: Tensor, saliency: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores one step of some images.

        Args:
            rows: (B,) which images these are, each at most once.
            images: (B, 3, H, W) in [0, 1].
            saliency: (B, H, W).
            classes: (B,) class that is scored.

        Returns:
            (B,) True where the step is the best of its image so far, and its AUC (B,), NaN where it was not
            scored to the end because it could not win.
        """
        steps = removal_steps(saliency, self.by_pos)
        alive = ~self.stopped[rows]
        if self.shortcuts:
            alive &= self._unseen(rows, steps)
        points = self.unmasked[rows].clone()
        best = self.best[rows]
        for some in _ROUNDS if self.shortcuts else (slice(0, N_STEPS - 1),):
            points += self._points(some, alive, images, steps, classes)
            if self.shortcuts:
                left = sum(_weight(step) for step in self._order[some.stop :])
                alive &= (points < best) if self.by_pos else (points + left > best)
        better = alive & ((points < best) if self.by_pos else (points > best))
        self.best[rows] = torch.where(better, points, best)
        aucs = torch.where(alive, points * _UNIT, torch.nan)
        if self.stop:
            self.stopped[rows] |= aucs < STOP_POS if self.by_pos else aucs > STOP_NEG
        return better, aucs

    def _points(self, some: slice, alive: Tensor, images: Tensor, steps: Tensor, classes: Tensor) -> Tensor:
        """Points that the given removal steps add to each image, 0 for those that are out."""
        added = torch.zeros(len(images), dtype=torch.long, device=images.device)
        everything = torch.arange(len(images), device=images.device)
        which = alive.nonzero()[:, 0] if self.leaves_out else everything
        step, weight = self._steps[some], self._weights[some]
        rows = which.repeat_interleave(len(step))
        step, weight = step.repeat(len(which)), weight.repeat(len(which))
        for i in range(0, len(rows), self.batch_size):
            part = slice(i, i + self.batch_size)
            perturbed = remove(images[rows[part]], steps[rows[part]], step[part])
            correct = read_class(self.explainee, perturbed, classes[rows[part]])[1].long()
            added.index_add_(0, rows[part], correct * weight[part])
        return added

    def _unseen(self, rows: Tensor, steps: Tensor) -> Tensor:
        """(B,) False where an image has had these very pixel sets before: that cannot beat its best."""
        fresh = []
        for row, pixels in zip(rows.tolist(), steps.cpu().numpy(), strict=True):
            digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
            fresh.append(digest not in self._seen[row])
            self._seen[row].add(digest)
        return torch.tensor(fresh, device=rows.device)


def _weight(step: int) -> int:
    return 1 if step in (0, N_STEPS - 1) else 2
