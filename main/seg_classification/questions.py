"""Which classes a class-conditional explainer is asked about in training, and the loss of its answers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.explainer import Explainer
from models.losses import Objective, mask_loss

# A class is in the picture if the explainee gives it at least this probability.
PRESENT = 0.1
_TOP = 2


@dataclass(frozen=True)
class Questions:
    """Classes asked about in each of B images.

    Attributes:
        classes: (B, k).
        present: (B, k), False where the class is not in the picture, so that the mask is to vanish.
    """

    classes: Tensor
    present: Tensor


@torch.no_grad()
def draw_questions(
    explainee, images: Tensor, known: Tensor | None, generator: torch.Generator, threshold: float = PRESENT
) -> Questions:
    """Three classes of each image (fewer where there are no three): two likely ones and one other.

    The likely ones are the true classes, where they are known, then the predicted one, then those that the
    explainee holds for next likely. The other one is drawn at random, from those under `threshold` if there
    are any. The true and the predicted class are present; any other is if its probability reaches the
    threshold.

    Args:
        explainee: images to logits.
        images: (B, 3, H, W) in [0, 1].
        known: (B, L) true classes, -1 for none; None to go by the predictions alone.
        generator: what the random class is drawn with, on the CPU.
        threshold: probability that counts as present.
    """
    logits = explainee(images)
    multi_label = getattr(explainee, "multi_label", False)
    probability = logits.sigmoid() if multi_label else logits.softmax(1)
    n_classes = probability.shape[1]
    certain = torch.zeros_like(probability).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    if known is not None:
        known = known.to(images.device)
        truth = torch.zeros_like(probability).scatter_add_(1, known.clamp(min=0), (known >= 0).float())
        certain = certain + 2 * truth.clamp(max=1)
    top = (probability + certain).topk(min(_TOP, n_classes)).indices
    present = (certain > 0) | (probability >= threshold)
    if n_classes <= _TOP:
        return Questions(top, present.gather(1, top))
    chance = torch.rand(probability.shape, generator=generator).to(images.device) - present.float()
    other = chance.scatter(1, top, -torch.inf).argmax(1, keepdim=True)
    classes = torch.cat([top, other], 1)
    return Questions(classes, present.gather(1, classes))


def answer_losses(
    explainer: Explainer, explainee, objective: Objective, images: Tensor, questions: Questions
) -> dict[str, Tensor]:
    """Losses of the masks for all questions, each (B,), the mean over an image's questions.

    For a class that is present the objective; for one that is not the mask loss alone, which pulls to 0.
    """
    n_each = questions.classes.shape[1]
    classes, present = questions.classes.flatten(), questions.present.flatten()
    masks = explainer(images, classes)
    rows = present.nonzero()[:, 0]
    answered = objective(explainee, images[rows // n_each], masks[rows], classes[rows])
    size = mask_loss(masks, objective.mask_loss)
    losses = {"loss": objective.mask_loss_mul * size, "prediction_loss": torch.zeros_like(size)}
    for name, values in losses.items():
        losses[name] = values.index_put((rows,), answered[name])
    losses["mask_loss"] = size
    return {name: values.view(-1, n_each).mean(1) for name, values in losses.items()}
