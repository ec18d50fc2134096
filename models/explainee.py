"""The explainee: the frozen classifier that is explained."""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from models.registry import InputSpec, create_model, input_spec, load_pretrained


class Explainee(nn.Module):
    """A classifier of images in [0, 1], frozen, in eval mode; gradients reach its input, never its weights.

    Args:
        model: module from normalised images (B, 3, H, W) to logits (B, C).
        spec: input size and normalisation.
        name: how reports name it.
        checkpoint: file that its weights were asked from, None where `models.registry` finds them again.
    """

    def __init__(self, model: nn.Module, spec: InputSpec, name: str, checkpoint: Path | None = None):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.name, self.spec, self.checkpoint = name, spec, checkpoint
        self.input_size = spec.size
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
        self.eval()

    @classmethod
    def from_name(cls, name: str, checkpoint: str | Path | None = None) -> "Explainee":
        """Explainee by alias or timm name, with weights as `models.registry.load_pretrained` finds them.

        Raises:
            UserError: unknown name or no weights.
        """
        model = load_pretrained(name, checkpoint)
        return cls(model, input_spec(model), name, None if checkpoint is None else Path(checkpoint))

    def with_random_weights(self, seed: int) -> "Explainee":
        """The same architecture with weights as its initialiser draws them, for sanity checks.

        Raises:
            UserError: the model is not one that timm makes by name.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = create_model(self.name, self.num_classes)
        return Explainee(model, self.spec, self.name)

    @cached_property
    def num_classes(self) -> int:
        """Number of logits."""
        with torch.no_grad():
            return self(torch.zeros(1, 3, *self.input_size, device=self.mean.device)).shape[1]

    def train(self, mode: bool = True) -> "Explainee":
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to logits (B, C)."""
        # Convolutions are up to twice as fast on this layout, on CPUs too.
        return self.model(((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
