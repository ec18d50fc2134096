"""The LTX objective (Barkan et al. 2023), each part per image; batches average over it."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ltx.config import UserError
from ltx.models.masking import apply_mask, upsample

SMALLEST, LARGEST = 0.05, 0.95  # shares of the pixels between which sizes are sampled
_SOFTNESS = 0.2  # width of the cut, in standard deviations of the map
_TINY = 1e-12  # keeps constant maps finite
_EDGE = 1e-5  # values nearer to 0 or 1 count as so near
_ENTROPY_FLOOR = 1e-7  # added to each token, so that a mask of zeros is a distribution too (released)
# Fractional parts of multiples of the golden ratio spread evenly over [0, 1).
_GOLDEN = 0.6180339887498949
_OPTION = {"fill": "mask_fill"}  # options whose name is not the field's


def _names(objective) -> list[str]:
    return [field.name for field in fields(objective)]


@dataclass(frozen=True)
class Objective:
    """Weighted sum of prediction, mask, order and smoothness loss.

    Attributes:
        mask_loss: one of `config.MASK_LOSSES`, see `mask_loss`.
        mask_loss_mul: weight of the mask loss.
        prediction_loss_mul: weight of the prediction loss.
        use_logits_only: minus the class's logit instead of its cross entropy.
        is_ce_neg: with the inverse term, (L(f(x*m)) - L(f(x*(1-m)))) / 2.
        fill: what stands where the mask removes.
        order_loss_mul: weight of the order loss (0: the paper's objective), see `_order`.
        order_removal_mul: weight of its second part, see `_order`.
        smooth_loss_mul: weight of the smoothness loss (0: the paper's objective), see `total_variation`.
        order_samples: sizes that the mask is cut at in each step.
    """

    mask_loss: str = "bce"
    mask_loss_mul: float = 50.0
    prediction_loss_mul: float = 1.0
    use_logits_only: bool = False
    is_ce_neg: bool = False
    fill: str = "black"
    order_loss_mul: float = 0.0
    order_removal_mul: float = 1.0
    smooth_loss_mul: float = 0.0
    order_samples: int = 2

    @classmethod
    def from_options(cls, options) -> "Objective":
        """Return the objective of options of the same names (`mask_fill`: `fill`); None is the default.

        Raises:
            UserError: a number out of its range.
        """
        given = {name: getattr(options, _OPTION.get(name, name), None) for name in _names(cls)}
        objective = cls(**{name: value for name, value in given.items() if value is not None})
        if objective.order_samples < 1:
            raise UserError(f"--order-samples {objective.order_samples}: must be at least 1")
        return objective

    def as_options(self) -> dict[str, Any]:
        """Return the fields by name of their options."""
        return {_OPTION.get(name, name): getattr(self, name) for name in _names(self)}

    def __call__(
        self, explainee, images: Tensor, token_masks: Tensor, classes: Tensor, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """Loss of token masks (B, 1, h, w) in [0, 1] over images (B, 3, H, W) in [0, 1] for classes (B,).

        With an explainee that is `multi_label`, -log sigmoid of the logit stands for the cross entropy.

        Args:
            explainee: images to logits.
            images: (B, 3, H, W).
            token_masks: (B, 1, h, w).
            classes: (B,).
            step: of the training, one for all or (B,); decides at which sizes the order loss cuts the mask.

        Returns:
            `loss`, `prediction_loss`, `mask_loss` and, where they have a weight, `order_loss` and
            `smooth_loss`, each (B,), without the weights in all but the first.
        """
        maps = upsample(token_masks, images.shape[-2:])
        prediction = self._prediction(explainee, apply_mask(images, maps, self.fill), classes)
        if self.is_ce_neg:
            inverse = self._prediction(explainee, apply_mask(images, 1 - maps, self.fill), classes)
            prediction = (prediction - inverse) / 2
        mask = mask_loss(token_masks, self.mask_loss)
        loss = self.prediction_loss_mul * prediction + self.mask_loss_mul * mask
        losses = {"loss": loss, "prediction_loss": prediction, "mask_loss": mask}
        if self.order_loss_mul:
            losses["order_loss"] = self._order(explainee, images, maps[:, 0], classes, step)
            losses["loss"] = losses["loss"] + self.order_loss_mul * losses["order_loss"]
        if self.smooth_loss_mul:
            losses["smooth_loss"] = total_variation(token_masks)
            losses["loss"] = losses["loss"] + self.smooth_loss_mul * losses["smooth_loss"]
        return losses

    def _order(self, explainee, images: Tensor, maps: Tensor, classes: Tensor, step: int | Tensor) -> Tensor:
        """Mean over the cuts of -log p(class | what is kept) - w log(1 - p(class | what is left)), (B,).

        The most salient share of the pixels alone has to keep the class, and the image without it to lose it,
        the latter with weight w, `order_removal_mul`. Sizes are those of the step, the same for all images,
        so that no image's masks depend on its batch.
        """
        n, k = len(images), self.order_samples
        steps = torch.as_tensor(step, device=images.device).expand(n)
        kept = cut(maps, sampled_shares(steps, k))
        masks = torch.cat([kept, 1 - kept], 1).flatten(0, 1)[:, None]
        pixels = images.repeat_interleave(2 * k, dim=0)
        shown = apply_mask(pixels, masks, self.fill)
        logits = explainee(shown)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        asked = classes.repeat_interleave(2 * k)[:, None]
        own = logits.gather(1, asked)[:, 0]
        if getattr(explainee, "multi_label", False):
            present, absent = F.logsigmoid(own), F.logsigmoid(-own)
        else:
            everything = logits.logsumexp(1)
            others = logits.scatter(1, asked, -torch.inf).logsumexp(1)
            present, absent = own - everything, others - everything
        kept, left = present.view(n, 2, k)[:, 0], absent.view(n, 2, k)[:, 1]
        return -(kept + self.order_removal_mul * left).mean(1)

    def _prediction(self, explainee, images: Tensor, classes: Tensor) -> Tensor:
        logits = explainee(images)
        own = logits.gather(1, classes[:, None])[:, 0]
        if self.use_logits_only:
            return -own
        if getattr(explainee, "multi_label", False):
            return -F.logsigmoid(own)
        return F.cross_entropy(logits, classes, reduction="none")


def total_variation(token_masks: Tensor) -> Tensor:
    """Mean difference between neighbours, down plus across, of token masks (B, 1, h, w), each (B,).

    Source: anisotropic total variation (Rudin et al. 1992), as masks are smoothed in Fong & Vedaldi 2017.
    """
    down, across = (token_masks.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (2, 3))
    return down + across


def mask_loss(token_masks: Tensor, kind: str) -> Tensor:
    """Size of token masks (B, 1, h, w), each (B,).

    Args:
        token_masks: in [0, 1]; over 1 with the activation `relu_released` alone.
        kind: `bce` is the released loss: binary cross entropy with logits, applied to the already sigmoided
            mask against 0, so mean softplus(t) between 0.693 and 1.313. `bce_probability` is the binary cross
            entropy that was meant, mean -log(1 - t); values over 1 count as 1. `l1` is the mean of t.
            `entropy_softmax` is the entropy of the mask as a distribution over the tokens, t / sum(t),
            divided by the log of their number (released, which refuses every activation but softmax).
    """
    tokens = token_masks.flatten(1)
    if kind == "bce":
        return F.softplus(tokens).mean(1)
    if kind == "bce_probability":
        tokens = tokens.clamp(max=1)
        return F.binary_cross_entropy(tokens, torch.zeros_like(tokens), reduction="none").mean(1)
    if kind == "l1":
        return tokens.mean(1)
    tokens = tokens + _ENTROPY_FLOOR
    p = tokens / tokens.sum(1, keepdim=True)
    return torch.special.entr(p).sum(1) / math.log(p.shape[1])


def sampled_shares(step: Tensor, n: int) -> Tensor:
    """Shares of the pixels (B, n) in [0.05, 0.95], one in each of n strata, always the same for a step.

    Args:
        step: (B,) steps of the training, from 0.
        n: sizes per step.
    """
    offset = torch.frac((step + 1).double() * _GOLDEN)[:, None]
    strata = torch.arange(n, device=step.device, dtype=torch.float64)
    return (SMALLEST + (LARGEST - SMALLEST) * (strata + offset) / n).float()


def cut(maps: Tensor, shares: Tensor) -> Tensor:
    """Masks (B, n, H, W) in (0, 1): near 1 on the most salient share of the pixels, near 0 elsewhere.

    Only the order counts, so it is the values' logits that are cut: where a mask keeps nearly nothing, or
    nearly all, its pixels differ by little and are ranked all the same. They are standardised first,
    gradients and all, since each pixel alone would gain by any rise. The value at which a standardised map is
    cut counts as a constant in the backward pass.

    Args:
        maps: (B, H, W) in [0, 1].
        shares: (B, n) in [0, 1].
    """
    flat = maps.flatten(1).logit(_EDGE)
    flat = flat - flat.mean(1, keepdim=True)
    flat = flat / flat.square().mean(1, keepdim=True).add(_TINY).sqrt()
    n_pixels = flat.shape[1]
    values = flat.detach().sort(dim=1, descending=True).values
    counts = (shares * n_pixels).round().long().clamp(1, n_pixels - 1)
    level = values.gather(1, counts)[..., None]
    return torch.sigmoid((flat[:, None] - level) / _SOFTNESS).unflatten(2, maps.shape[1:])
