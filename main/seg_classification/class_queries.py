"""Classes that a class-conditional explainer is asked about in training, and the loss of its answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltx.models.explainee import class_scores
from ltx.models.explainer import Explainer
from ltx.models.losses import Objective, mask_loss

# A class is in the picture if the explainee gives it at least this probability.
PRESENT = 0.1
_N_LIKELY, _N_OTHER = 2, 1


@dataclass(frozen=True)
class Queries:
    """Classes asked about in each of B images.

    Attributes:
        classes: (B, k).
        present: (B, k), False where the class is not in the picture, so that the mask is to vanish.
    """

    classes: Tensor
    present: Tensor


def random_rows(seeds: Sequence[tuple[int, ...]], n: int) -> Tensor:
    """(B, n) random numbers in [0, 1), each row from its own seed: the same however a batch is shared out."""
    return torch.from_numpy(np.stack([np.random.default_rng(seed).random(n) for seed in seeds])).float()


@torch.no_grad()
def draw_queries(
    explainee, images: Tensor, known: Tensor | None, chance: Tensor, threshold: float = PRESENT
) -> Queries:
    """Three classes of each image (fewer where there are no three): two likely ones and one other.

    The likely ones are the true classes, where they are known, then the predicted one, then those that the
    explainee holds for next likely. The other is drawn at random, from those under `threshold` if there are
    any. The true and the predicted class are present; any other is if its probability reaches the threshold.

    Args:
        explainee: images to logits.
        images: (B, 3, H, W) in [0, 1].
        known: (B, L) true classes, -1 for none; None to go by the predictions alone.
        chance: (B, C) random numbers in [0, 1), which draw the other class.
        threshold: probability that counts as present.
    """
    logits = explainee(images)
    probability = class_scores(logits, getattr(explainee, "multi_label", False))
    n_classes = probability.shape[1]
    certain = torch.zeros_like(probability).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    if known is not None:
        known = known.to(images.device)
        truth = torch.zeros_like(probability).scatter_add_(1, known.clamp(min=0), (known >= 0).float())
        certain = certain + 2 * truth.clamp(max=1)
    likely = (probability + certain).topk(min(_N_LIKELY, n_classes)).indices
    present = (certain > 0) | (probability >= threshold)
    chance = chance.to(images.device) - present.float()
    chance.scatter_(1, likely, -torch.inf)
    others = chance.topk(min(_N_OTHER, n_classes - likely.shape[1])).indices
    classes = torch.cat([likely, others], 1)
    return Queries(classes, present.gather(1, classes))


def answer_losses(
    explainer: Explainer,
    explainee,
    objective: Objective,
    images: Tensor,
    queries: Queries,
    absent_weight: float,
    step: int = 0,
) -> dict[str, Tensor]:
    """Losses of the masks for all queries, each (B,).

    The mean of the objective over the classes that are present, and for those that are not the mask loss
    alone, which pulls to 0, its mean at `absent_weight`. `prediction_loss` and `mask_loss` are those
    of the present ones.
    """
    n_each = queries.classes.shape[1]
    classes, present = queries.classes.flatten(), queries.present.flatten()
    masks = explainer(images, classes)
    rows, absent = present.nonzero()[:, 0], (~present).nonzero()[:, 0]
    losses = objective(explainee, images[rows // n_each], masks[rows], classes[rows], step)
    losses = {name: _means(values, rows // n_each, len(images)) for name, values in losses.items()}
    size = _means(mask_loss(masks[absent], objective.mask_loss), absent // n_each, len(images))
    return losses | {"loss": losses["loss"] + absent_weight * objective.mask_loss_mul * size}


def _means(values: Tensor, image: Tensor, n_images: int) -> Tensor:
    """(n_images,) means of the values that belong to each image; 0 where none does."""
    sums = values.new_zeros(n_images).index_add(0, image, values)
    return sums / torch.bincount(image, minlength=n_images).clamp(min=1)


@torch.no_grad()
def improbable_area(explainer: Explainer, explainee, images: Tensor) -> Tensor:
    """(B,) mean mask of the class that the explainee holds for least likely in each image: to be near 0."""
    return explainer(images, explainee(images).argmin(1)).mean((1, 2, 3))
