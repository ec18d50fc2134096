"""The explainee: the frozen classifier that is explained."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ltx.config import UserError
from ltx.models.folding import fold_batch_norm
from ltx.models.frozen import freeze_linears
from ltx.models.precision import logits_of
from ltx.models.registry import InputSpec, create_model, input_spec, load_pretrained


class Explainee(nn.Module):
    """A classifier of images in [0, 1], frozen, in eval mode; gradients reach its input, never its weights.

    With its attribute `precision` set to `bf16` it computes under autocast; its logits are float32 always.

    Args:
        model: module from normalised images (B, 3, H, W) to logits (B, C).
        spec: input size and normalisation.
        name: how reports name it.
        checkpoint: file that its weights were asked from, None where `models.registry` finds them again.
        multi_label: its logits are independent (sigmoid), so a class counts as predicted above one half.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: InputSpec,
        name: str,
        checkpoint: Path | None = None,
        multi_label: bool = False,
    ):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.name, self.spec, self.checkpoint = name, spec, checkpoint
        self.precision = "float32"
        self.multi_label = multi_label
        self.input_size = spec.size
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
        self._folded: nn.Module | None = None
        self.eval()

    @classmethod
    def from_name(
        cls, name: str, checkpoint: str | Path | None = None, download: bool = False
    ) -> "Explainee":
        """Explainee by alias or timm name, with weights as `models.registry.load_pretrained` finds them.

        Args:
            name: alias or timm name.
            checkpoint: file of weights.
            download: let timm fetch what its cache lacks.

        Raises:
            UserError: unknown name, no weights, or a backbone without a classifier.
        """
        model = load_pretrained(name, checkpoint, download)
        if getattr(model, "num_classes", None) == 0:
            raise UserError(f"'{name}' has no classifier, so there is no class to explain; choose another")
        explainee = cls(model, input_spec(model), name, None if checkpoint is None else Path(checkpoint))
        return explainee._fold()

    def _fold(self) -> "Explainee":
        """Runs the model with its batch norms folded from now on; `model` itself stays as it is."""
        self._folded = fold_batch_norm(self.model, (len(self.spec.mean), *self.spec.size))
        return self

    def with_random_weights(self, seed: int) -> "Explainee":
        """The same architecture with weights as its initialiser draws them, for sanity checks.

        Raises:
            UserError: the model is not one that timm makes by name.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = create_model(self.name, self.num_classes)
        return Explainee(model, self.spec, self.name)._fold()

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: tuple[int, int],
        name: str | None = None,
        multi_label: bool = False,
    ) -> "Explainee":
        """Explainee from any classifier.

        Args:
            module: normalised images (B, 3, H, W) to logits (B, C), or to an object with `logits`.
                It is frozen and put in eval mode.
            mean: of the normalisation, per channel, on [0, 1] pixels.
            std: of the normalisation, likewise.
            input_size: (H, W) that the module takes.
            name: how reports name it (default: its class).
            multi_label: logits are independent (sigmoid); needed where there is one logit alone.

        Raises:
            UserError: the module does not give logits for such images.
        """
        spec = InputSpec((input_size[0], input_size[1]), tuple(mean), tuple(std))
        explainee = cls(module, spec, name or type(module).__name__, multi_label=multi_label)
        device = next((value.device for value in module.parameters()), torch.device("cpu"))
        explainee.to(device)
        try:
            with torch.no_grad():
                logits = explainee(torch.zeros(1, len(spec.mean), *spec.size, device=device))
            shape = tuple(logits.shape)
        except (RuntimeError, ValueError, AttributeError) as error:
            raise UserError(f"'{explainee.name}' takes no images of size {spec.size}: {error}") from error
        if len(shape) != 2:
            raise UserError(f"'{explainee.name}' gives {shape} for one image; wanted logits (1, classes)")
        if shape[1] == 1 and not multi_label:
            raise UserError(f"'{explainee.name}' has one logit; pass multi_label=True for a sigmoid output")
        return explainee

    def speed_up(self, precision: str = "float32", compile: bool = False) -> "Explainee":
        """Readies it for many passes; `model` itself stays as it is, and what hooks it no longer sees them.

        Args:
            precision: `float32`, or `bf16` (autocast; the last layer and the logits stay float32).
            compile: through `torch.compile`.
        """
        model, self.precision = self._folded or self.model, precision
        # Inductor takes oneDNN's product only with constant weights, and has its own way with linear layers.
        size = (len(self.spec.mean), *self.spec.size)
        frozen = None if compile else freeze_linears(model, precision, size)
        self._folded = frozen or self._folded
        if self._folded is not None and self.mean.is_cuda:
            self._folded.to(memory_format=torch.channels_last)
        if compile:
            self.compile(dynamic=True)
        return self

    @property
    def runs_folded(self) -> bool:
        """True if a faster copy of the model runs, see `models.folding` and `models.frozen`."""
        return self._folded is not None

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
        normalised = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return logits_of(self._folded or self.model, normalised, self.precision)


def class_scores(logits: Tensor, multi_label: bool = False) -> Tensor:
    """Return the probabilities of logits (B, C): softmax, or sigmoid where labels are independent."""
    return logits.sigmoid() if multi_label else logits.softmax(1)


@torch.no_grad()
def read_class(explainee, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability of each image's class, (B,) in [0, 1], and 1.0 where it is predicted, (B,).

    A class is predicted if it is the top one, or, of a `multi_label` explainee, above one half.
    """
    logits, multi_label = explainee(images).float(), getattr(explainee, "multi_label", False)
    probability = class_scores(logits, multi_label).gather(1, classes[:, None])[:, 0]
    if multi_label:
        return probability, (logits.gather(1, classes[:, None])[:, 0] > 0).float()
    return probability, (logits.argmax(1) == classes).float()
