"""The explainee: the frozen classifier that is explained."""

import copy
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ltx.config import UserError
from ltx.models.checkpoints import weights_sha256
from ltx.models.folding import fold_batch_norm
from ltx.models.frozen import freeze_linears
from ltx.models.kinks import round_kinks
from ltx.models.modules import as_spec, check_finite, freeze, set_eval, take_in, to_channels
from ltx.models.outputs import NotLogits, Outputs, rows_of
from ltx.models.precision import in_full, output_of
from ltx.models.probing import settle
from ltx.models.registry import create_model, input_spec, label_names, load_pretrained
from ltx.models.specs import InputSpec, adjusted, crop_of

log = logging.getLogger(__name__)


class Explainee(nn.Module):
    """A classifier of images in [0, 1], frozen, in eval mode; gradients reach its input, never its weights.

    Whatever the model gives is turned into logits, see `models.outputs`: one output becomes two classes, no
    and yes. A model with one channel sees RGB images in grey. With its attribute `precision` set to `bf16` it
    computes under autocast; its logits are float32 always (float64 for float64 images).

    Args:
        model: module from normalised images (B, C, H, W) to logits; frozen in place.
        spec: input size and normalisation.
        name: how reports name it.
        checkpoint: file that its weights were asked from, None where `models.registry` finds them again.
        multi_label: its logits are independent (sigmoid), so a class counts as predicted above one half.
        outputs: how the model's values are read.
        labels: name of each class, where they are known.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: InputSpec,
        name: str,
        checkpoint: Path | None = None,
        multi_label: bool = False,
        outputs: Outputs | None = None,
        labels: Sequence[str] | None = None,
    ):
        super().__init__()
        self.model = freeze(model)
        self.name, self.spec, self.checkpoint = name, spec, checkpoint
        self.precision = "float32"
        self.multi_label = multi_label
        self.outputs: Outputs | None = outputs or Outputs()
        self.labels = labels
        self.input_size = spec.size
        self.channels = len(spec.mean)
        # How the model wants its input, see `models.probing`; convolutions are up to twice as fast on
        # channels-last input, on CPUs too.
        self.dtype: torch.dtype | None = None
        self.channels_last = True
        self.one_by_one = False
        for key in ("mean", "std"):
            values = torch.tensor(getattr(spec, key), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(key, values, persistent=False)
        self._folded: nn.Module | None = None
        self.eval()

    @classmethod
    def from_name(
        cls,
        name: str,
        checkpoint: str | Path | None = None,
        download: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: Sequence[int] | None = None,
        resize: str | None = None,
        multi_label: bool = False,
    ) -> "Explainee":
        """Explainee by name, with weights as `models.registry.load_pretrained` finds them.

        Size, normalisation and names of classes are those of the `config.json` beside the weights, else the
        ones that timm knows.

        Args:
            name: alias, timm name, `local-dir:FOLDER` as timm saves one, or `hf:FOLDER_OR_NAME`.
            checkpoint: file of weights.
            download: let timm or transformers fetch what their cache lacks.
            mean: of the normalisation, per channel or one for all, on [0, 1] pixels.
            std: of the normalisation, likewise.
            input_size: (H, W), or one side of a square.
            resize: `direct`, or `centre-crop` as timm's transforms do it.
            multi_label: its classes are independent (sigmoid).

        Raises:
            UserError: unknown name, no weights or damaged ones, or a backbone without a classifier.
        """
        path = None if checkpoint is None else Path(checkpoint)
        model = load_pretrained(name, checkpoint, download, input_size)
        n_outputs = getattr(model, "num_classes", None)
        if n_outputs == 0:
            raise UserError(f"'{name}' has no classifier, so there is no class to explain; choose another")
        check_finite(model, name if path is None else str(path))
        spec = adjusted(input_spec(model), mean, std, input_size, resize, crop_of(model))
        outputs = Outputs(one=n_outputs == 1)
        explainee = cls(model, spec, name, path, multi_label and not outputs.one, outputs, label_names(model))
        explainee._say()
        return explainee._fold()

    def _say(self) -> None:
        """Says what was recognised, and names the classes of a question."""
        if (said := self.outputs and self.outputs.describe()) is not None:
            log.warning("'%s' %s", self.name, said)
        if self.outputs and self.outputs.one:
            of_one = self.labels if self.labels and len(self.labels) == 1 else None
            self.labels = (f"not {of_one[0]}", of_one[0]) if of_one else self.labels or ("no", "yes")

    def _fold(self) -> "Explainee":
        """Run the model with its batch norms folded from now on; `model` itself stays as it is."""
        self._folded = fold_batch_norm(self.model, (self.channels, *self.spec.size))
        return self

    def with_random_weights(self, seed: int) -> "Explainee":
        """The same architecture with weights as its initialiser draws them, for sanity checks.

        Raises:
            UserError: the model is not one that timm makes by name.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            n_outputs = 1 if self.outputs.one else self.num_classes
            model = create_model(self.name, n_outputs, self.spec.size, getattr(self.model, "in_chans", None))
        return Explainee(
            model, self.spec, self.name, None, self.multi_label, self.outputs, self.labels
        )._fold()

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        mean: Sequence[float] | float,
        std: Sequence[float] | float,
        input_size: tuple[int, int] | int,
        name: str | None = None,
        multi_label: bool = False,
        outputs: str = "auto",
        labels: Sequence[str] | None = None,
    ) -> "Explainee":
        """Explainee from any classifier, which itself stays as it is: mode, flags, hooks and weights.

        It shares the module's weights, and computes in their type and on their device.

        Args:
            module: normalised images (B, C, H, W) to logits (B, classes): as a tensor, the first of a tuple
                or list, or in a dictionary or object with `logits`. One output per image is the answer yes
                (class 1) or no (class 0).
            mean: of the normalisation, per channel or one for all, on [0, 1] pixels.
            std: of the normalisation, likewise.
            input_size: (H, W) that the module takes, or one side of a square.
            name: how reports name it (default: its class).
            multi_label: the classes are independent (sigmoid).
            outputs: `auto` recognises a softmax or sigmoid inside the module; `logits` trusts that there is
                none; `any` allows outputs without logits, which only a function as target can read.
            labels: name of each class.

        Raises:
            UserError: the module does not give logits for such images, holds or gives NaN, or its output has
                no gradient by the image.
        """
        name = name or getattr(module, "__name__", type(module).__name__)
        if outputs not in ("auto", "logits", "any"):
            raise UserError(f"outputs '{outputs}': choose from auto, logits, any")
        with torch.inference_mode(False), torch.enable_grad():
            own = take_in(module, name)
            check_finite(own, name)
            explainee = cls(own, as_spec(own, mean, std, input_size), name, multi_label=multi_label)
            explainee.labels = labels
            settle(explainee, outputs)
        explainee._say()
        return explainee

    def speed_up(self, precision: str = "float32", compile: bool = False) -> "Explainee":
        """Readies it for many passes; `model` itself stays as it is, and what hooks it no longer sees them.

        Args:
            precision: `float32`, or `bf16` (autocast; the last layer and the logits stay float32).
            compile: through `torch.compile`.
        """
        model, self.precision = self._folded or self.model, precision
        # Inductor takes oneDNN's product only with constant weights, and has its own way with linear layers.
        size = (self.channels, *self.spec.size)
        frozen = None if compile else freeze_linears(model, precision, size)
        self._folded = frozen or self._folded
        if self._folded is not None and self.mean.is_cuda:
            self._folded.to(memory_format=torch.channels_last)
        if compile:
            self.compile(dynamic=True)
        return self

    def with_rounded_kinks(self, width: float) -> "Explainee":
        """The same function with gradients that do not jump, see `models.kinks`; itself if it has no copy."""
        try:
            model = round_kinks(self._folded or self.model, width)
        except Exception as error:  # modules of others refuse copies in their own ways
            log.info("the kinks of '%s' stay: %s", self.name, error)
            return self
        rounded = copy.copy(self)
        rounded._modules = dict(self._modules)
        rounded._folded = model
        if self._compiled_call_impl is not None:
            rounded.compile(dynamic=True)
        return rounded

    @property
    def runs_folded(self) -> bool:
        """True if a faster copy of the model runs, see `models.folding` and `models.frozen`."""
        return self._folded is not None

    @cached_property
    def sha256(self) -> str:
        """Hash of the model's weights."""
        return weights_sha256(self.model)

    @cached_property
    def num_classes(self) -> int:
        """Number of logits.

        Raises:
            UserError: the model gives none.
        """
        blank = torch.zeros(1, self.channels, *self.input_size, device=self.mean.device)
        with torch.no_grad():
            return self(blank).shape[1]

    def train(self, mode: bool = True) -> "Explainee":
        """Stays in eval mode whatever is asked."""
        self.training = False
        for part in self.children():
            set_eval(part)
        return self

    def output(self, images: Tensor):
        """Images (B, C, H, W) in [0, 1] to what the model gives, as it gives it."""
        normalised = (to_channels(images, self.channels) - self.mean) / self.std
        if self.dtype is not None:
            normalised = normalised.to(self.dtype)
        if self.channels_last:
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        return output_of(self._folded or self.model, normalised, self.precision)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, classes).

        Raises:
            UserError: the model gives none.
        """
        if self.outputs is None:
            raise UserError(f"'{self.name}' gives no logits of classes; pass a function as the target")
        if self.one_by_one and len(images) > 1:
            return torch.cat([self(image) for image in images.split(1)])
        try:
            rows = in_full(rows_of(self.output(images), len(images)), self.precision)
        except NotLogits as error:
            raise UserError(f"'{self.name}' {error}") from error
        if self.dtype is not None:
            rows = rows.to(torch.promote_types(images.dtype, torch.float32))
        return self.outputs.logits(rows)


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
