"""Pictures that are asked more than one question: why this class, why that one, why one that is not there?

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
from ltx.datasets.build import batches
from ltx.main.baselines.base import image_generator
from ltx.models.explainee import Explainee, class_scores

OBJECT, BACKGROUND, ABSENT = "object", "background", "absent"
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


def questions_of(
    images: ImageSet,
    chosen: list[int],
    explainee: Explainee,
    seed: int,
    num_workers: int = 0,
    batch_size: int = 32,
) -> Iterator[tuple[Tensor, list[Question]]]:
    """Batches of pictures with what each is asked.

    Args:
        images: labelled, with object masks.
        chosen: which of them.
        explainee: on the device.
        seed: of the absent classes, which depend on it and the picture's name alone.
        num_workers: processes that read pictures.
        batch_size: pictures at once.

    Yields:
        Pictures (N, 3, H, W) in [0, 1], on the device, one for each question, and the N questions.

    Raises:
        UserError: a picture has no label.
    """
    for data in batches(images, chosen, batch_size, num_workers):
        pixels = data["image"].to(explainee.mean.device)
        with torch.no_grad():
            logits = explainee(pixels)
            probability = class_scores(logits, explainee.multi_label).cpu()
        rows, questions = [], []
        for row, position in enumerate(data["index"].tolist()):
            picture = {key: values[row] for key, values in data.items()}
            asked = _questions(images.names[position], picture, probability[row], seed)
            rows += [row] * len(asked)
            questions += asked
        yield pixels[rows], questions


def _questions(name: str, picture: dict[str, Tensor], probability: Tensor, seed: int) -> list[Question]:
    label, predicted = int(picture["label"]), int(probability.argmax())
    if label < 0:
        raise UserError(f"image {name} has no label, so there is no class to ask for; pass --labels-path")
    mask = picture["mask"].numpy()
    region, rest = mask == 1, mask == 0
    if "second_label" in picture:
        second, other = int(picture["second_label"]), picture["second_mask"].numpy() == 1
        asked = [(OBJECT, label, region, other), (OBJECT, second, other, region)]
    else:
        asked = [(OBJECT, label, region, rest)]
        if predicted != label:
            asked.append((BACKGROUND, predicted, rest, region))
    absent = _absent_class(name, probability, [question[1] for question in asked], seed)
    if absent is not None:
        asked.append((ABSENT, absent, np.zeros_like(region), np.ones_like(region)))
    return [Question(name, *question) for question in asked]


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
    """Whether a map's maximum (the first of equal ones) lies on the asked pixels, or within reach and nearer.

    Nearer than to the other pixels, that is; within reach is 15 pixels of 224, to the image's shorter side.
    """
    if not question.asked.any():
        return False
    place = np.unravel_index(saliency.argmax(), saliency.shape)
    to_asked = distance_transform_edt(~question.asked)[place]
    to_other = distance_transform_edt(~question.other)[place] if question.other.any() else np.inf
    return bool(to_asked <= _REACH * min(saliency.shape) and to_asked < to_other)
