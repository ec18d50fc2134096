"""Questions to one picture: why this class, why that one, why one that is not there?

Two digits side by side are asked for each of the two. A picture whose object is outlined is asked for the
object's class and, where the explainee predicts another one, for that: it must then see it in the background.
Each is also asked for a class that is absent: not in the labels, and improbable to the explainee.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.main.baselines.base import image_generator
from ltx.main.runs.method import Ask, Asked
from ltx.models.explainee import Explainee, class_scores

KINDS = OBJECT, BACKGROUND, ABSENT = "object", "background", "absent"
# An absent class is drawn from those that the explainee gives less than this.
_IMPROBABLE = 0.05
# A maximum counts as on the object within 15 pixels of 224, as in the pointing game (Zhang et al. 2018).
_REACH = 15 / 224


@dataclass(frozen=True)
class Question:
    """One class that one picture is asked for.

    Attributes:
        name: of the picture.
        kind: `object`, `background` or `absent`: where the class lies.
        label: the class.
        asked: bool (H, W), the pixels of that class; none if it is absent.
        other: bool (H, W), those of what else the picture shows.
    """

    name: str
    kind: str
    label: int
    asked: np.ndarray
    other: np.ndarray

    @classmethod
    def of(cls, name: str, sample: dict, kind: str, label: int) -> "Question":
        """A question about a sample of an image set with object masks."""
        mask = sample["mask"].numpy()
        region, rest = mask == 1, mask == 0
        if kind == ABSENT:
            return cls(name, kind, label, np.zeros_like(region), np.ones_like(region))
        if "second_label" in sample:
            rest = sample["second_mask"].numpy() == 1
        first = label == int(sample["label"])
        return cls(name, kind, label, *((region, rest) if first else (rest, region)))


def ask_about(images: ImageSet, seed: int) -> Ask:
    """Several classes of each picture; `kind` in the mask files is the position of each in `KINDS`.

    Args:
        images: labelled, with object masks.
        seed: of the absent classes, which depend on it and the picture's name alone.

    Returns:
        What a `MaskJob` asks; raises `UserError` where a picture has no label.
    """

    def ask(data: dict, logits: Tensor, explainee: Explainee) -> Asked:
        probability = class_scores(logits, explainee.multi_label).cpu()
        found = []
        for row, position in enumerate(data["index"].tolist()):
            labels = [int(data[key][row]) for key in ("label", "second_label") if key in data]
            found += [
                (row, *pair) for pair in _classes(images.names[position], labels, probability[row], seed)
            ]
        rows, kinds, classes = torch.tensor(found).T
        classes = classes.to(logits.device)
        return Asked(rows, classes, classes, {"kind": kinds.to(torch.int8)})

    return ask


def _classes(name: str, labels: list[int], probability: Tensor, seed: int) -> Iterator[tuple[int, int]]:
    """Yield kind and class of each question about one picture."""
    if labels[0] < 0:
        raise UserError(f"image {name} has no label, so there is no class to ask for; pass --labels-path")
    yield from ((KINDS.index(OBJECT), label) for label in labels)
    predicted = int(probability.argmax())
    if len(labels) == 1 and predicted != labels[0]:
        labels = [*labels, predicted]
        yield KINDS.index(BACKGROUND), predicted
    absent = _absent_class(name, probability, labels, seed)
    if absent is not None:
        yield KINDS.index(ABSENT), absent


def _absent_class(name: str, probability: Tensor, present: list[int], seed: int) -> int | None:
    """A random improbable class, the least probable one if none is; None if every class is present."""
    left = [c for c in range(len(probability)) if c not in present]
    if not left:
        return None
    improbable = [c for c in left if probability[c] < _IMPROBABLE]
    if not improbable:
        return min(left, key=lambda c: float(probability[c]))
    return improbable[int(torch.randint(len(improbable), (1,), generator=image_generator(seed, name)))]


def share_on_asked(saliency: np.ndarray, question: Question) -> float:
    """Share of a map's weight (H, W) on the asked pixels, of that on these and the other ones; 0 if none."""
    asked, other = saliency[question.asked].sum(), saliency[question.other].sum()
    return float(asked / (asked + other)) if asked + other > 0 else 0.0


def peaks_on_asked(saliency: np.ndarray, question: Question) -> bool:
    """True if a map's maximum (the first of equal ones) lies on the asked pixels or near them.

    Near is within 15 pixels of 224 of the image's shorter side, and nearer than to the other pixels.
    """
    if not question.asked.any():
        return False
    place = np.unravel_index(saliency.argmax(), saliency.shape)
    to_asked = distance_transform_edt(~question.asked)[place]
    to_other = distance_transform_edt(~question.other)[place] if question.other.any() else np.inf
    return bool(to_asked <= _REACH * min(saliency.shape) and to_asked < to_other)
