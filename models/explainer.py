"""The explainer: a backbone whose tokens or features become a mask over the image."""

import copy
import logging
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ALIASES, UserError
from models import published
from models.checkpoints import load_metadata, load_weights, save_safetensors
from models.explainee import Explainee
from models.registry import InputSpec, create_model, input_spec, load_pretrained, pair_folder

log = logging.getLogger(__name__)

ACTIVATIONS = ("sigmoid", "relu", "softmax")
BEST_FILE = "best.safetensors"
# Position, class, distillation and register tokens and the patch embedding are frozen, always (released).
_EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token", "norm_pre")
# Parts of a classifier that the features do not pass through.
_HEADS = (
    "head", "head_dist", "head_drop", "classifier", "fc", "fc_norm", "attn_pool", "global_pool", "pre_logits"
)  # fmt: skip


class NoExplainerError(UserError):
    """There is no pLTX explainer of a pair."""


class Explainer(nn.Module):
    """Images in [0, 1] to token masks in [0, 1]; always in eval mode (no dropout, fixed batch norm).

    A backbone with tokens (ViT, Swin, ...) gets Linear(d, d), Tanh, Linear(d, 1) on each token, prefix tokens
    dropped; one with a feature map (B, C, h, w) a 1x1 convolution. It resizes and normalises for its own
    backbone. DenseNet's features are taken before their last ReLU, where torchvision's end (released).

    Args:
        backbone: timm model.
        spec: its input size and normalisation.
        name: its alias or timm name.
        activation: from head output to mask. `sigmoid`; `relu` (cut at 1); `softmax` over the tokens, divided
            by its maximum.
        n_first_layers_to_freeze: freezes so many first transformer blocks too; no effect on CNNs (released).
    """

    def __init__(
        self,
        backbone: nn.Module,
        spec: InputSpec,
        name: str,
        activation: str = "sigmoid",
        n_first_layers_to_freeze: int = 0,
    ):
        super().__init__()
        self.name, self.activation = name, activation
        self.metadata: dict | None = None  # of the checkpoint that the weights came from
        self.input_size = spec.size
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
        backbone.reset_classifier(0)
        last_norm = getattr(getattr(backbone, "features", None), "norm5", None)
        if last_norm is not None:
            last_norm.act = nn.Identity()
        self.backbone = backbone.requires_grad_(True).eval()
        self.to(device := next(backbone.parameters()).device)
        blank = torch.zeros(1, 3, *spec.size, device=device)
        with torch.no_grad():
            features = self._features(blank)
        self.has_tokens = features.dim() == 3 or self._channels_last(features)
        self.head = self._make_head(features).to(device)
        self._freeze(n_first_layers_to_freeze, features.dim() == 3)
        with torch.no_grad():
            self.grid = tuple(self(blank).shape[-2:])
        self.eval()

    @classmethod
    def for_explainee(
        cls, name: str, explainee: Explainee, activation: str = "sigmoid", n_first_layers_to_freeze: int = 0
    ) -> "Explainer":
        """An explainer with pretrained weights: the explainee's own where the architecture is the same.

        Raises:
            UserError: unknown name or no weights.
        """
        backbone, spec = _backbone(name, explainee)
        return cls(backbone, spec, name, activation, n_first_layers_to_freeze)

    @classmethod
    def from_name(
        cls, name: str, explainee: Explainee, input_size: tuple[int, int] | None = None
    ) -> "Explainer":
        """A pretrained backbone with a fresh head, for `main.api.explain` to finetune from scratch.

        Its activation is `softmax`: masks then peak at 1 from the first step on. With `sigmoid`, a fresh head
        finds it cheaper to darken the whole image, which many networks do not mind.

        Args:
            name: alias or timm name; where it is the explainee's, its own weights are used.
            explainee: what it is to explain.
            input_size: (H, W) that the backbone is to see (default: its own); pass the explainee's where its
                images are not square.

        Raises:
            UserError: unknown name, no weights, or a backbone that cannot take such a size.
        """
        backbone, spec = _backbone(name, explainee)
        if input_size is not None:
            spec = InputSpec(tuple(input_size), spec.mean, spec.std)
            _resize_tokens(backbone, name, spec.size)
        return cls(backbone, spec, name, "softmax")

    @classmethod
    def from_checkpoint(cls, path: str | Path, name: str | None = None) -> "Explainer":
        """A pLTX explainer from one of our files, a training run's folder, or one of the authors' files.

        Args:
            path: the file or folder.
            name: alias or timm name, where the file does not say.

        Raises:
            UserError: no such file, a damaged one, or one that fits no architecture.
        """
        path = Path(path) / BEST_FILE if Path(path).is_dir() else Path(path)
        metadata = load_metadata(path) if path.suffix == ".safetensors" and path.is_file() else {}
        name = name or metadata.get("explainer") or published_alias(load_weights(path), path)
        explainer = cls.untrained(name, metadata.get("activation", "sigmoid"))
        load_explainer(path, explainer)
        return explainer

    @classmethod
    def untrained(
        cls, name: str, activation: str = "sigmoid", n_first_layers_to_freeze: int = 0
    ) -> "Explainer":
        """An explainer with random weights, for a checkpoint to fill.

        Raises:
            UserError: unknown name.
        """
        backbone = create_model(name)
        return cls(backbone, input_spec(backbone), name, activation, n_first_layers_to_freeze)

    @property
    def is_trained(self) -> bool:
        """Whether its weights came from a pLTX checkpoint."""
        return self.metadata is not None

    def train(self, mode: bool = True) -> "Explainer":
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to token masks (B, 1, h, w) in [0, 1]."""
        if images.shape[-2:] != self.input_size:
            images = F.interpolate(
                images, self.input_size, mode="bilinear", align_corners=False, antialias=True
            )
        normalised = (images - self.mean) / self.std
        if not self.has_tokens:
            normalised = normalised.contiguous(memory_format=torch.channels_last)  # faster convolutions
        logits = self._head_logits(self._features(normalised))
        if self.activation == "sigmoid":
            return logits.sigmoid()
        if self.activation == "relu":
            return logits.clamp(0, 1)
        weights = logits.flatten(1).softmax(1)
        return (weights / weights.amax(1, keepdim=True)).view_as(logits)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that training changes, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def _features(self, normalised: Tensor) -> Tensor:
        return self.backbone.forward_features(normalised)

    def _channels_last(self, features: Tensor) -> bool:
        return features.dim() == 4 and getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"

    def _make_head(self, features: Tensor) -> nn.Module:
        if not self.has_tokens:
            return nn.Conv2d(features.shape[1], 1, kernel_size=1)
        dim = features.shape[-1]
        return nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1))

    def _head_logits(self, features: Tensor) -> Tensor:
        if not self.has_tokens:
            return self.head(features)
        if features.dim() == 4:
            return self.head(features).permute(0, 3, 1, 2)
        tokens = features[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
        h, w = self._token_grid(tokens.shape[1])
        return self.head(tokens).transpose(1, 2).unflatten(2, (h, w))

    def _token_grid(self, n_tokens: int) -> tuple[int, int]:
        """Rows and columns of the tokens: the patch embedding's own grid, else square."""
        grid = getattr(getattr(self.backbone, "patch_embed", None), "grid_size", None)
        side = math.isqrt(n_tokens)
        for h, w in (grid, (side, side)) if grid else ((side, side),):
            if h * w == n_tokens:
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


def _backbone(name: str, explainee: Explainee) -> tuple[nn.Module, InputSpec]:
    """A pretrained backbone: the explainee's own where the name is the same."""
    if name == explainee.name and hasattr(explainee.model, "forward_features"):
        return copy.deepcopy(explainee.model), explainee.spec
    backbone = load_pretrained(name)
    return backbone, input_spec(backbone)


def _resize_tokens(backbone: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Lets a transformer take images of another size; feature maps need nothing."""
    if not hasattr(backbone, "set_input_size"):
        return
    try:
        backbone.set_input_size(img_size=size)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"'{name}' cannot take images of {size[0]} x {size[1]}: {error}") from error


def save_explainer(
    path: Path, explainer: Explainer, explainee_name: str, metadata: dict, half: bool = False
) -> None:
    """Writes an explainer's weights with what they belong to; `half` stores them in float16."""
    tensors = explainer.state_dict()
    if half:
        tensors = {
            key: value.half() if value.is_floating_point() else value for key, value in tensors.items()
        }
    names = {"explainer": explainer.name, "explainee": explainee_name, "activation": explainer.activation}
    save_safetensors(path, tensors, names | metadata)


def load_explainer(path: Path, explainer: Explainer) -> dict:
    """Loads weights in place, from our files or the authors', and returns their metadata.

    Raises:
        UserError: the file is missing or belongs to another architecture (the first mismatch is named).
    """
    path = Path(path)
    tensors = load_weights(path)
    metadata = load_metadata(path) if path.suffix == ".safetensors" else {}
    pair = published.split(tensors)
    if pair is not None:
        tensors, metadata = pair.explainer, metadata | {"published": True}
    own = explainer.state_dict()
    for key, value in own.items():
        if key not in tensors or tensors[key].shape != value.shape:
            found = tuple(tensors[key].shape) if key in tensors else "missing"
            raise UserError(
                f"{path} does not fit explainer '{explainer.name}': '{key}' is {found}, "
                f"wanted {tuple(value.shape)}"
            )
    explainer.load_state_dict({key: tensors[key].to(value.dtype) for key, value in own.items()})
    if pair is not None:
        published.as_published(explainer, pair)
    trained_with = metadata.get("activation", explainer.activation)
    if trained_with != explainer.activation:
        log.warning("%s was trained with activation '%s', which is used", path, trained_with)
    explainer.activation, explainer.metadata = trained_with, metadata
    return metadata


def published_alias(tensors: dict[str, Tensor], path: Path) -> str:
    """Alias of the published pair that a file's tensors are.

    Raises:
        UserError: they are no published pair.
    """
    pair = published.split(tensors)
    if pair is None:
        raise UserError(f"{path} is no published LTX checkpoint: it has no 'vit_for_patch_classification.*'")
    found = {key: tuple(value.shape) for key, value in pair.explainer.items()}
    names = [name for name, alias in ALIASES.items() if alias.published]
    for name in names:
        with torch.device("meta"):
            wanted = Explainer.untrained(name).state_dict()
        if found == {key: tuple(value.shape) for key, value in wanted.items()}:
            return name
    raise UserError(f"the explainer in {path} fits none of the published pairs ({', '.join(names)})")


def find_explainer(explainer_name: str, explainee_name: str, by_target: bool, given: Path | None) -> Path:
    """The pLTX checkpoint of a pair: `given` (a file or a training run's folder), else in `checkpoints/`.

    There our own `best` comes first, then the authors' file.

    Raises:
        UserError: there is none, or several published ones; the message says what to put where.
    """
    kind = "target" if by_target else "predicted"
    folder = pair_folder(explainer_name, explainee_name)
    if given is not None and Path(given).is_file():
        return Path(given)
    ours = folder / kind / BEST_FILE if given is None else Path(given) / BEST_FILE
    if ours.is_file():
        return ours
    files = published.published_files(folder if given is None else Path(given), kind)
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(path.name for path in files)
        raise UserError(
            f"{files[0].parent} holds several published files ({names}); pass one with --explainer-checkpoint"
        )
    where = f"--explainer-checkpoint {given}: no such file or training run" if given else f"{ours} not found"
    raise NoExplainerError(
        f"no pLTX explainer for the pair {explainer_name} / {explainee_name} ({kind}): {where}; "
        f"{_what_to_put_where(explainer_name, explainee_name, folder, kind)}"
    )


def _what_to_put_where(explainer_name: str, explainee_name: str, folder: Path, kind: str) -> str:
    alias = ALIASES.get(explainer_name)
    own = "train one with main/seg_classification/run_seg_cls.py or pass --explainer-checkpoint FILE"
    if alias is None or not alias.published or explainer_name != explainee_name:
        return own
    pattern = published.PATTERN.format(kind=kind)
    return f"put the authors' {pattern} into {folder} (it holds the explainee too), or {own}"
