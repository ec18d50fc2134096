"""The explainer: a backbone whose tokens or features become a mask over the image."""

import logging

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ltx.config import MASK_SCALES, UserError
from ltx.models.backbones import (
    adaptor_for,
    freeze,
    fresh_spec,
    has_narrow_strided_convolution,
    larger_size,
    pretrained_backbone,
)
from ltx.models.conditioning import ClassCondition, class_rows_of
from ltx.models.explainee import Explainee
from ltx.models.fitting import resize_tokens
from ltx.models.heads import activate, finer_stages
from ltx.models.masking import with_halo
from ltx.models.modules import to_channels
from ltx.models.precision import autocast, in_full
from ltx.models.readout import are_tokens, make_head, mask_logits, silence
from ltx.models.registry import InputSpec, create_model, input_spec

log = logging.getLogger(__name__)


class Explainer(nn.Module):
    """Images in [0, 1] to token masks in [0, 1]; always in eval mode (no dropout, fixed batch norm).

    A backbone with tokens (ViT, Swin, ...) gets Linear(d, d), Tanh, Linear(d, 1) on each token, prefix tokens
    dropped; one with a feature map (B, C, h, w) a 1x1 convolution. It resizes and normalises for its own
    backbone. DenseNet's features are taken before their last ReLU, where torchvision's end (released).

    With a `mask_scale` the mask has so many rows and columns for each of the backbone's tokens or last
    features, see `models.fine_heads`.

    A class-conditional one is asked about a class with each image, see `models.conditioning`; any other shows
    the same mask whatever class it is asked about.

    With its attribute `precision` set to `bf16`, only the backbone computes under autocast. Its attribute
    `halo` is a number in [0, 1), see `models.masking.with_halo`; checkpoints keep it.

    Args:
        backbone: timm model.
        spec: its input size and normalisation.
        name: its alias or timm name.
        activation: from head output to mask, see `models.heads.activate`.
        n_first_layers_to_freeze: freezes so many first transformer blocks too; no effect on CNNs (released).
        class_rows: makes it class-conditional: classifier rows (C, d), or C, see `ClassCondition`.
        mask_scale: rows and columns of the mask for each of the tokens (released: 1).

    Raises:
        UserError: a `mask_scale` that is no power of two.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spec: InputSpec,
        name: str,
        activation: str = "sigmoid",
        n_first_layers_to_freeze: int = 0,
        class_rows: Tensor | int | None = None,
        mask_scale: int = 1,
    ):
        super().__init__()
        if mask_scale not in MASK_SCALES:
            raise UserError(f"--mask-scale {mask_scale}: choose from {', '.join(map(str, MASK_SCALES))}")
        self.name, self.activation, self.mask_scale = name, activation, mask_scale
        self.precision = "float32"
        self.halo = 0.0
        self.metadata: dict | None = None  # of the checkpoint that the weights came from
        self.said: set[str] = set()  # hashes of other explainees that it was warned about
        self.input_size = spec.size
        self.channels = len(spec.mean)
        for key in ("mean", "std"):
            values = torch.tensor(getattr(spec, key), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(key, values, persistent=False)
        self.adaptor = adaptor_for(backbone, self.channels)
        backbone.reset_classifier(0)
        last_norm = getattr(getattr(backbone, "features", None), "norm5", None)
        if last_norm is not None:
            last_norm.act = nn.Identity()
        self.backbone = backbone.float().requires_grad_(True).eval()
        # LeViT, TinyViT, ... keep their attention biases in eval mode, where our weights still change.
        self._keeping = [part for part in self.backbone.modules() if hasattr(part, "attention_bias_cache")]
        self.to(device := next(backbone.parameters()).device)
        blank = torch.zeros(1, self.channels, *spec.size, device=device, dtype=torch.float32)
        self.condition: ClassCondition | None = None
        self._stages: list[int] = []
        with torch.no_grad():
            adapted = blank if self.adaptor is None else self.adaptor(blank)
            features, _ = self._features(adapted, None)
        self.has_tokens = are_tokens(self.backbone, features)
        # Not to be had under vmap.
        self.channels_last = not (self.has_tokens or has_narrow_strided_convolution(self.backbone))
        if not self.has_tokens:
            self._stages = finer_stages(self.backbone, adapted, features.shape[-2], mask_scale)
        with torch.no_grad():
            finer = self._features(adapted, None)[1] if self._stages else []
        self.head = make_head(features, finer, self.has_tokens, mask_scale).to(device, torch.float32)
        dim = features.shape[-1 if self.has_tokens else 1]
        if class_rows is not None:
            pooled = features.dim() == 4 or getattr(backbone, "global_pool", "") == "avg"
            entry = len(backbone.blocks) // 2 if isinstance(backbone, VisionTransformer) else None
            self.condition = ClassCondition(class_rows, dim, pooled, entry).to(device, torch.float32)
            if self.condition.starts_as_map:
                silence(self.head)
        freeze(self.backbone, name, self.has_tokens, n_first_layers_to_freeze, features.dim() == 3)
        with torch.no_grad():
            self.grid = tuple(self(blank, torch.zeros(1, dtype=torch.long, device=device)).shape[-2:])
        self.eval()

    @classmethod
    @torch.inference_mode(False)
    def for_explainee(
        cls,
        name: str,
        explainee: Explainee,
        activation: str = "sigmoid",
        n_first_layers_to_freeze: int = 0,
        class_conditional: bool = False,
        mask_scale: int = 1,
        download: bool = False,
        input_size: tuple[int, int] | None = None,
    ) -> "Explainer":
        """An explainer with pretrained weights: the explainee's own where the architecture is the same.

        Where its grid would have fewer than three rows or columns, it sees its images enlarged.

        Raises:
            UserError: unknown name, no weights, or a backbone that cannot take such a size.
        """
        backbone, spec = pretrained_backbone(name, explainee, download)
        spec = fresh_spec(backbone, name, spec, explainee, input_size)
        rows = class_rows_of(explainee) if class_conditional else None
        shape = (name, activation, n_first_layers_to_freeze, rows, mask_scale)
        explainer = cls(backbone, spec, *shape)
        if (size := larger_size(explainer.grid, mask_scale, spec.size)) is None:
            return explainer
        log.warning(
            "'%s' has %d x %d tokens on %d x %d pixels, so it sees them enlarged to %d x %d",
            name, *explainer.grid, *spec.size, *size,
        )  # fmt: skip
        resize_tokens(backbone, name, size)
        return cls(backbone, InputSpec(size, spec.mean, spec.std), *shape)

    @classmethod
    @torch.inference_mode(False)
    def from_name(
        cls,
        name: str,
        explainee: Explainee,
        input_size: tuple[int, int] | None = None,
        class_conditional: bool = False,
        download: bool = False,
        seed: int = 42,
    ) -> "Explainer":
        """A pretrained backbone with a fresh head, for `main.api.explain` to finetune from scratch.

        Its activation is `softmax`: masks then peak at 1 from the first step on. With `sigmoid`, a fresh head
        finds it cheaper to darken the whole image, which many networks do not mind.

        Args:
            name: alias or timm name; where it is the explainee's, its own weights are used.
            explainee: what it is to explain.
            input_size: (H, W) that the backbone is to see (default: its own); pass the explainee's where its
                images are not square. Where that leaves too few tokens, a multiple is taken.
            class_conditional: it is to be asked about a class with each image.
            download: let timm fetch weights that its cache lacks.
            seed: of the fresh head; PyTorch's own random numbers are left as they are.

        Raises:
            UserError: unknown name, no weights, or a backbone that cannot take such a size.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls.for_explainee(
                name, explainee, "softmax", 0, class_conditional, 1, download, input_size
            )

    @classmethod
    @torch.inference_mode(False)
    def untrained(
        cls,
        name: str,
        activation: str = "sigmoid",
        n_first_layers_to_freeze: int = 0,
        class_rows: Tensor | int | None = None,
        mask_scale: int = 1,
        spec: InputSpec | None = None,
    ) -> "Explainer":
        """An explainer with random weights, for a checkpoint to fill.

        Args:
            name: alias or timm name.
            activation: see `Explainer`.
            n_first_layers_to_freeze: likewise.
            class_rows: likewise.
            mask_scale: likewise.
            spec: size and normalisation (default: the backbone's own).

        Raises:
            UserError: unknown name.
        """
        backbone = create_model(name) if spec is None else create_model(name, size=spec.size)
        spec = spec or input_spec(backbone)
        return cls(backbone, spec, name, activation, n_first_layers_to_freeze, class_rows, mask_scale)

    @property
    def is_trained(self) -> bool:
        """True if the weights came from a pLTX checkpoint."""
        return self.metadata is not None

    @property
    def class_conditional(self) -> bool:
        """True if the masks depend on the class that is asked about."""
        return self.condition is not None

    def train(self, mode: bool = True) -> "Explainer":
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    def forward(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to token masks (B, 1, h, w) in [0, 1].

        Args:
            images: of any size.
            classes: class asked about, (B,), or (B * k,) for k classes of each image in turn, which give
                masks (B * k, 1, h, w). Without effect where the explainer is not class-conditional.

        Raises:
            UserError: a class-conditional explainer without classes.
        """
        if classes is None and self.condition is not None:
            raise UserError(f"'{self.name}' is class-conditional: pass the class to explain in each image")
        images = to_channels(images, self.channels)
        if images.shape[-2:] != self.input_size:
            images = F.interpolate(
                images, self.input_size, mode="bilinear", align_corners=False, antialias=True
            )
        normalised = (images - self.mean) / self.std
        if self.adaptor is not None:
            normalised = self.adaptor(normalised)
        if self.channels_last:
            normalised = normalised.contiguous(memory_format=torch.channels_last)  # faster convolutions
        with autocast(self.precision, images.device):
            features, finer = self._features(normalised, classes)
        finer = [in_full(stage, self.precision) for stage in finer]
        logits = mask_logits(self, in_full(features, self.precision), finer, classes)
        return with_halo(activate(logits, self.activation), self.halo)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that training changes, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def _features(self, normalised: Tensor, classes: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The backbone's last features, and those of the earlier stages that the head reads."""
        for part in self._keeping:
            part.attention_bias_cache = {}
        if self._stages:
            return self.backbone.forward_intermediates(normalised, indices=self._stages)
        if self.condition is None or self.condition.entry is None:
            return self.backbone.forward_features(normalised), []
        handle = self.backbone.blocks[self.condition.entry].register_forward_pre_hook(
            lambda block, inputs: (self.condition.ask(inputs[0], classes), *inputs[1:])
        )
        try:
            return self.backbone.forward_features(normalised), []
        finally:
            handle.remove()
