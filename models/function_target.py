"""A function of the module's output as what is explained: regression, detection, similarity to a text."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from ltx.config import UserError
from ltx.models.masking import apply_mask

_SHARPNESS = 4.0  # logit on the image itself; minus that where all is removed


class FunctionTarget:
    """An explainee that answers, for each of B images, whether its score is still that of the whole image.

    Scores may be of any size and sign, so they are brought to one scale: the logit of image i is 4 where the
    score is that of image i, and -4 where it is that of nothing (the image with everything removed). It
    stands in the place of an `Explainee` that is multi-label, class i being image i.

    Args:
        explainee: gives the module's output.
        function: from that output to one score per image, (n,).
        images: (B, C, H, W) in [0, 1].
        fill: what stands where pixels are removed.
        batch_size: images at once.

    Attributes:
        whole: (B,) score of each image.

    Raises:
        UserError: the function gives something else, or what has no gradient by the image.
    """

    multi_label = True

    def __init__(
        self, explainee, function: Callable, images: Tensor, fill: str = "black", batch_size: int = 16
    ):
        self.explainee, self.function = explainee, function
        self.name, self.mean, self.std = explainee.name, explainee.mean, explainee.std
        self.input_size, self.channels = explainee.input_size, explainee.channels
        self.num_classes = len(images)
        self._check(images[:1])
        with torch.no_grad():
            parts = images.split(batch_size)
            self.whole = torch.cat([self.scores(part) for part in parts])
            removed = [apply_mask(part, torch.zeros_like(part[:, :1]), fill) for part in parts]
            nothing = torch.cat([self.scores(part) for part in removed])
        bad = (~(self.whole.isfinite() & nothing.isfinite())).nonzero().flatten().tolist()
        if bad:
            raise UserError(f"the target's score is NaN or infinite for image {bad[0]}")
        half = (self.whole - nothing) / 2
        least = 1e-6 * self.whole.abs().clamp(min=1e-6)
        self._half = torch.where(half.abs() < least, least, half)
        self._middle = self.whole - self._half

    def with_rounded_kinks(self, width: float) -> "FunctionTarget":
        """The same function with gradients that do not jump, see `models.kinks`."""
        rounded = copy.copy(self)
        rounded.explainee = self.explainee.with_rounded_kinks(width)
        return rounded

    def __call__(self, images: Tensor) -> Tensor:
        """Any images (n, C, H, W) to logits (n, B)."""
        scores = self.scores(images)[:, None]
        return _SHARPNESS * (scores - self._middle) / self._half

    def scores(self, images: Tensor) -> Tensor:
        """The function's own values, (n,) float32."""
        if self.explainee.one_by_one and len(images) > 1:
            return torch.cat([self.scores(image) for image in images.split(1)])
        found = self.function(self.explainee.output(images))
        if isinstance(found, Tensor) and found.numel() == len(images) and found.is_floating_point():
            return found.reshape(len(images)).float()
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise UserError(f"the target gives {what} for {len(images)} images; wanted one floating score each")

    def _check(self, image: Tensor) -> None:
        image = image.detach().requires_grad_(True)
        with torch.enable_grad():
            score = self.scores(image).sum()
            has = score.requires_grad
            gradient = torch.autograd.grad(score, image, allow_unused=True)[0] if has else None
        if gradient is None or not gradient.any():
            raise UserError(
                f"the target's score on '{self.name}' has no gradient by the image, so nothing can be "
                "learned about it; it must come from the output by differentiable steps alone"
            )
