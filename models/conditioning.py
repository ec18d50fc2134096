"""Class conditioning: what tells an explainer which class it is asked about.

A class is known by the explainee's own classifier row for it, so classes that look alike to the explainee
look alike to its explainer. Where an explainee has no such rows, each class gets a learned embedding.
"""

import logging
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltx.models.explainee import Explainee

log = logging.getLogger(__name__)

CLASSIFIER, LEARNED = "classifier", "learned"
_WIDTH = 128


class ClassCondition(nn.Module):
    """Asks features (B, ..., dim) for a class: a scale and a shift of their channels, and a logit per place.

    In a plain transformer the class enters earlier too, added to all tokens where `entry` stands: the blocks
    after it can then look for what makes up the class.

    The logit is a learned product of feature and row; where both are as wide, plus a weighted one, which for
    the explainee's own pooled features is its class activation map. Scale, shift and learned product start at
    zero, the weights too unless the features are pooled (`starts_as_map`): training starts from the plain
    explainer, or from that map.

    Args:
        rows: (C, d) classifier rows, kept as they are but for their mean and size; or C, the number of
            classes, whose embeddings are learned.
        dim: channels of the features.
        pooled: the classifier reads the mean of such features (a CNN's, say), not a token beside them.
        entry: number of the block before which the class is added to the tokens, None for none.
    """

    def __init__(self, rows: Tensor | int, dim: int, pooled: bool = False, entry: int | None = None):
        super().__init__()
        self.kind = LEARNED if isinstance(rows, int) else CLASSIFIER
        if isinstance(rows, int):
            self.rows = nn.Parameter(torch.randn(rows, _WIDTH))
        else:
            self.register_buffer("rows", _standardised(rows.detach().float()))
        row_dim = self.rows.shape[1]
        self.query = nn.Linear(row_dim, _WIDTH)
        self.film = nn.Linear(_WIDTH, 2 * dim)
        self.key = nn.Linear(dim, _WIDTH)
        self.entry, self.enter = entry, None if entry is None else nn.Linear(_WIDTH, dim)
        for layer in filter(None, (self.film, self.key, self.enter)):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        aligned = self.kind == CLASSIFIER and row_dim == dim
        self.starts_as_map = aligned and pooled
        start = torch.full((dim,), 1 / math.sqrt(dim) if pooled else 0.0)
        self.direct = nn.Parameter(start) if aligned else None

    @property
    def num_classes(self) -> int:
        """Classes that can be asked for."""
        return self.rows.shape[0]

    def ask(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Add the classes (B * k,) to tokens (B, N, dim), which gives (B * k, N, dim)."""
        asked = self.enter(self.query(F.embedding(classes, self.rows)))
        return tokens.repeat_interleave(len(classes) // len(tokens), 0) + asked[:, None]

    def forward(self, features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, ..., dim) and classes (B,) to features of that shape and logits (B, ..., 1)."""
        rows = F.embedding(classes, self.rows)
        for _ in range(features.dim() - 2):
            rows = rows.unsqueeze(-2)
        query = self.query(rows)
        scale, shift = self.film(query).chunk(2, -1)
        logits = (self.key(features) * query).sum(-1, keepdim=True) / math.sqrt(_WIDTH)
        if self.direct is not None:
            logits = logits + (features * (self.direct * rows)).sum(-1, keepdim=True)
        return features * (1 + scale) + shift, logits


def classifier_rows(model: nn.Module, num_classes: int) -> Tensor | None:
    """The rows (C, d) of a model's last layer, None where it has no linear one with a row per class.

    timm's models say which layer it is; of others, the last linear layer or 1x1 convolution with so many
    outputs is taken. Of several classifiers (DeiT's distilled head beside its own) the first.

    Args:
        model: the classifier.
        num_classes: C, the number of its logits.
    """
    layers = []
    if hasattr(model, "get_classifier"):
        found = model.get_classifier()
        layers = list(found) if isinstance(found, tuple | list) else [found]
    layers += list(model.modules())[::-1]
    for layer in layers:
        weight = layer.weight if isinstance(layer, nn.Linear | nn.Conv2d) else None
        if weight is not None and weight.shape[0] == num_classes and weight[0, 0].numel() == 1:
            return weight.detach().flatten(1).clone()
    return None


def class_rows_of(explainee: Explainee) -> Tensor | int:
    """Classifier rows of an explainee, else its number of classes, see `ClassCondition`."""
    rows = classifier_rows(explainee.model, explainee.num_classes)
    if rows is None:
        log.warning("'%s' has no linear classifier to read; each class gets an embedding", explainee.name)
        return explainee.num_classes
    return rows


def _standardised(rows: Tensor) -> Tensor:
    """Rows without what all classes share, at a mean square of 1."""
    if len(rows) > 1:
        rows = rows - rows.mean(0)
    return rows / rows.square().mean().sqrt().clamp(min=torch.finfo(rows.dtype).tiny)
