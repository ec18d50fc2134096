"""The explainer: a backbone whose tokens or features become a mask over the image."""

import logging
import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ltx.config import MASK_SCALES, UserError
from ltx.models.backbones import has_narrow_strided_convolution, pretrained_backbone, resize_tokens
from ltx.models.conditioning import ClassCondition, class_rows_of
from ltx.models.explainee import Explainee
from ltx.models.heads import StageHead, activate, finer_stages
from ltx.models.masking import with_halo
from ltx.models.precision import autocast, in_full
from ltx.models.registry import InputSpec, create_model, input_spec

log = logging.getLogger(__name__)

# Position, class, distillation and register tokens and the patch embedding are frozen, always (released).
_EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token", "norm_pre")
_MAP_BIAS = -2.0  # of a class activation map, positive on most of an image, leaves the peaks
# Parts of a classifier that the features do not pass through.
_HEADS = (
    "head", "head_dist", "head_drop", "classifier", "fc", "fc_norm", "attn_pool", "global_pool", "pre_logits"
)  # fmt: skip


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
        self.input_size = spec.size
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
        backbone.reset_classifier(0)
        last_norm = getattr(getattr(backbone, "features", None), "norm5", None)
        if last_norm is not None:
            last_norm.act = nn.Identity()
        self.backbone = backbone.requires_grad_(True).eval()
        # LeViT, TinyViT, ... keep their attention biases in eval mode, where our weights still change.
        self._keeping = [part for part in self.backbone.modules() if hasattr(part, "attention_bias_cache")]
        self.to(device := next(backbone.parameters()).device)
        blank = torch.zeros(1, 3, *spec.size, device=device)
        self.condition: ClassCondition | None = None
        self._stages: list[int] = []
        with torch.no_grad():
            features, _ = self._features(blank, None)
        self.has_tokens = features.dim() == 3 or self._channels_last(features)
        # Not to be had under vmap.
        self.channels_last = not (self.has_tokens or has_narrow_strided_convolution(self.backbone))
        if not self.has_tokens:
            self._stages = finer_stages(self.backbone, blank, features.shape[-2], mask_scale)
        self.head = self._make_head(blank, features).to(device)
        dim = features.shape[-1 if self.has_tokens else 1]
        if class_rows is not None:
            pooled = features.dim() == 4 or getattr(backbone, "global_pool", "") == "avg"
            entry = len(backbone.blocks) // 2 if isinstance(backbone, VisionTransformer) else None
            self.condition = ClassCondition(class_rows, dim, pooled, entry).to(device)
            if self.condition.starts_as_map:
                self._silence_head()
        self._freeze(n_first_layers_to_freeze, features.dim() == 3)
        with torch.no_grad():
            self.grid = tuple(self(blank, torch.zeros(1, dtype=torch.long, device=device)).shape[-2:])
        self.eval()

    @classmethod
    def for_explainee(
        cls,
        name: str,
        explainee: Explainee,
        activation: str = "sigmoid",
        n_first_layers_to_freeze: int = 0,
        class_conditional: bool = False,
        mask_scale: int = 1,
        download: bool = False,
    ) -> "Explainer":
        """An explainer with pretrained weights: the explainee's own where the architecture is the same.

        Raises:
            UserError: unknown name or no weights.
        """
        backbone, spec = pretrained_backbone(name, explainee, download)
        rows = class_rows_of(explainee) if class_conditional else None
        return cls(backbone, spec, name, activation, n_first_layers_to_freeze, rows, mask_scale)

    @classmethod
    def from_name(
        cls,
        name: str,
        explainee: Explainee,
        input_size: tuple[int, int] | None = None,
        class_conditional: bool = False,
        download: bool = False,
    ) -> "Explainer":
        """A pretrained backbone with a fresh head, for `main.api.explain` to finetune from scratch.

        Its activation is `softmax`: masks then peak at 1 from the first step on. With `sigmoid`, a fresh head
        finds it cheaper to darken the whole image, which many networks do not mind.

        Args:
            name: alias or timm name; where it is the explainee's, its own weights are used.
            explainee: what it is to explain.
            input_size: (H, W) that the backbone is to see (default: its own); pass the explainee's where its
                images are not square.
            class_conditional: it is to be asked about a class with each image.
            download: let timm fetch weights that its cache lacks.

        Raises:
            UserError: unknown name, no weights, or a backbone that cannot take such a size.
        """
        backbone, spec = pretrained_backbone(name, explainee, download)
        if input_size is not None:
            spec = InputSpec((input_size[0], input_size[1]), spec.mean, spec.std)
            resize_tokens(backbone, name, spec.size)
        rows = class_rows_of(explainee) if class_conditional else None
        return cls(backbone, spec, name, "softmax", class_rows=rows)

    @classmethod
    def untrained(
        cls,
        name: str,
        activation: str = "sigmoid",
        n_first_layers_to_freeze: int = 0,
        class_rows: Tensor | int | None = None,
        mask_scale: int = 1,
    ) -> "Explainer":
        """An explainer with random weights, for a checkpoint to fill.

        Raises:
            UserError: unknown name.
        """
        backbone = create_model(name)
        spec = input_spec(backbone)
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
        if images.shape[-2:] != self.input_size:
            images = F.interpolate(
                images, self.input_size, mode="bilinear", align_corners=False, antialias=True
            )
        normalised = (images - self.mean) / self.std
        if self.channels_last:
            normalised = normalised.contiguous(memory_format=torch.channels_last)  # faster convolutions
        with autocast(self.precision, images.device):
            features, finer = self._features(normalised, classes)
        finer = [in_full(stage, self.precision) for stage in finer]
        logits = self._head_logits(in_full(features, self.precision), finer, classes)
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

    def _channels_last(self, features: Tensor) -> bool:
        return features.dim() == 4 and getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"

    def _make_head(self, blank: Tensor, features: Tensor) -> nn.Module:
        if self._stages:
            finer = self._features(blank, None)[1]
            return StageHead([features.shape[1], *(stage.shape[1] for stage in finer)], self.mask_scale)
        values = self.mask_scale**2
        if not self.has_tokens:
            return nn.Conv2d(features.shape[1], values, kernel_size=1)
        dim = features.shape[-1]
        return nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, values))

    def _silence_head(self) -> None:
        """Lets the fresh head start at a constant: the class activation map alone makes the mask."""
        last = [module for module in self.head.modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, _MAP_BIAS)

    def _head_logits(self, features: Tensor, finer: list[Tensor], classes: Tensor | None) -> Tensor:
        """Features as the backbone gives them to mask logits (B, 1, h, w)."""
        if features.dim() == 3:
            features = features[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
        shift = None
        if self.condition is not None:
            features, finer, shift = self._asked(features, finer, classes)
        logits = self.head(features, finer) if self._stages else self._as_map(self.head(features))
        if not self._stages and self.mask_scale > 1:
            logits = F.pixel_shuffle(logits, self.mask_scale)
        if shift is None:
            return logits
        shift = self._as_map(shift)
        if self.mask_scale > 1:
            shift = F.interpolate(shift, logits.shape[-2:], mode="bilinear", align_corners=False)
        return logits + shift

    def _as_map(self, values: Tensor) -> Tensor:
        """Values in the head's own layout to (B, n, h, w)."""
        if not self.has_tokens:
            return values
        if values.dim() == 4:
            return values.permute(0, 3, 1, 2)
        return values.transpose(1, 2).unflatten(2, self._token_grid(values.shape[1]))

    def _asked(
        self, features: Tensor, finer: list[Tensor], classes: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Features for each class that is asked about; what to add to their logits, in the head's layout."""
        if len(classes) != len(features):
            times = len(classes) // len(features)
            features, *finer = (values.repeat_interleave(times, 0) for values in (features, *finer))
        axis = -1 if self.has_tokens else 1
        features, shift = self.condition(features.movedim(axis, -1), classes)
        return features.movedim(-1, axis), finer, shift.movedim(-1, axis)

    def _token_grid(self, n_tokens: int) -> tuple[int, int]:
        """Rows and columns of the tokens: the patch embedding's own grid, else square.

        One token is a class token (PiT gives no other), and no map.
        """
        grid = getattr(getattr(self.backbone, "patch_embed", None), "grid_size", None)
        side = math.isqrt(n_tokens)
        for h, w in (grid, (side, side)) if grid else ((side, side),):
            if h * w == n_tokens > 1:
                return int(h), int(w)
        raise UserError(f"'{self.name}' gives {n_tokens} tokens, which fit no grid; choose another explainer")

    def _freeze(self, n_first_layers: int, is_plain_transformer: bool) -> None:
        for name, parameter in self.backbone.named_parameters():
            if name.split(".")[0] in _HEADS or (self.has_tokens and name.split(".")[0] in _EMBEDDINGS):
                parameter.requires_grad_(False)
        if not n_first_layers:
            return
        blocks = getattr(self.backbone, "blocks", None)
        if not is_plain_transformer or blocks is None:
            log.warning("freezing first layers has no effect on '%s'", self.name)
            return
        if n_first_layers > len(blocks):
            raise UserError(
                f"--explainer-model-n-first-layers-to-freeze {n_first_layers}: '{self.name}' has "
                f"{len(blocks)} layers"
            )
        for block in blocks[:n_first_layers]:
            block.requires_grad_(False)
