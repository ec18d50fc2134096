"""Image classifiers of Hugging Face's `transformers`, an optional package: `hf:FOLDER_OR_NAME`.

A folder is one that `save_pretrained` wrote, with `preprocessor_config.json` of its image processor.
"""

import contextlib
import importlib.util
import json
import logging
import math
from pathlib import Path

from torch import Tensor, nn

from ltx.config import UserError

log = logging.getLogger(__name__)

PREFIX = "hf:"
_EAGER = {"attn_implementation": "eager"}  # the fused one has no gradient by Swin's position bias under vmap
_HEADS = ("classifier", "head", "cls_classifier", "distillation_classifier")


def is_name(name: str) -> bool:
    """Return True if a name stands for a model of transformers."""
    return name.startswith(PREFIX)


class Classifier(nn.Module):
    """A classifier of transformers with the interface of a timm model: features, head, sizes.

    Args:
        model: `...ForImageClassification`.
        processor: content of its `preprocessor_config.json`, empty where there is none.
    """

    def __init__(self, model: nn.Module, processor: dict):
        super().__init__()
        self.model = model
        cfg = model.config
        self.num_classes = int(cfg.num_labels)
        self.in_chans = int(getattr(cfg, "num_channels", 3))
        self.size = _size(processor, cfg)
        self.mean, self.std = (
            tuple(processor.get(key) or (0.5,) * self.in_chans) for key in ("image_mean", "image_std")
        )
        names = getattr(cfg, "id2label", None) or {}
        self.labels = tuple(str(names[key]) for key in sorted(names, key=int)) or None
        if self.labels and all(name == f"LABEL_{i}" for i, name in enumerate(self.labels)):
            self.labels = None
        self.output_fmt = "NCHW"
        self.num_prefix_tokens = 0
        self.global_pool = ""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to logits."""
        return self.model(pixel_values=x).logits

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images to tokens (B, N, d), special ones left out, or a feature map (B, d, h, w)."""
        body = self.model.base_model if self.model.base_model is not self.model else _body(self.model)
        output = body(pixel_values=x)
        features = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
        if features.dim() == 3:
            return features[:, features.shape[1] - self._n_tokens(x, features.shape[1]) :]
        return features

    def _n_tokens(self, x: Tensor, n: int) -> int:
        """Number of the n tokens that lie on the grid; class and register tokens stand before them."""
        patch = getattr(self.model.config, "patch_size", None)
        if isinstance(patch, int):
            on_grid = (x.shape[-2] // patch) * (x.shape[-1] // patch)
            if 0 < on_grid <= n and not hasattr(self.model.config, "depths"):
                return on_grid
        return n if math.isqrt(n) ** 2 == n else math.isqrt(n - 1) ** 2

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return next(
            (getattr(self.model, name) for name in _HEADS if hasattr(self.model, name)), nn.Identity()
        )

    def reset_classifier(self, num_classes: int) -> None:
        """Take the head off, as explainers do without it."""
        for name in _HEADS:
            if hasattr(self.model, name):
                setattr(self.model, name, nn.Identity())
        self.num_classes = num_classes


def _body(model: nn.Module) -> nn.Module:
    """The part of a classifier below its head where `base_model` is the classifier itself."""
    return max(model.children(), key=lambda part: sum(value.numel() for value in part.parameters()))


def load(name: str, checkpoint: str | Path | None = None, download: bool = False) -> Classifier:
    """A classifier with its weights.

    Args:
        name: `hf:FOLDER`, or with `download` also `hf:` and a name on the hub; without it such a name is
            looked for in transformers' cache.
        checkpoint: must not be given: the folder holds the weights.
        download: let transformers fetch it.

    Raises:
        UserError: transformers is not installed, or there is no image classifier.
    """
    if checkpoint is not None:
        folder = Path(checkpoint).parent
        raise UserError(f"--explainee-checkpoint {checkpoint}: with '{name}' pass the folder, hf:{folder}")
    auto, where = _transformers().AutoModelForImageClassification, name.removeprefix(PREFIX)
    options = {} if Path(where).is_dir() else {"local_files_only": not download}
    try:
        with _quiet():
            model, report = auto.from_pretrained(where, output_loading_info=True, **_EAGER, **options)
    except Exception as error:  # the hub client raises many kinds
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        advice = "" if download or Path(where).is_dir() else "; pass a folder, or add --download True"
        raise UserError(f"'{name}' gives no image classifier: {reason}{advice}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise UserError(f"'{name}' has no trained classifier: its weights lack {missing}")
    return Classifier(model.eval(), _processor(where, download))


def create(name: str) -> Classifier:
    """The same architecture with random weights.

    Raises:
        UserError: as `load`.
    """
    where, transformers = name.removeprefix(PREFIX), _transformers()
    try:
        cfg = transformers.AutoConfig.from_pretrained(where, local_files_only=True)
        model = transformers.AutoModelForImageClassification.from_config(cfg, **_EAGER)
    except Exception as error:
        raise UserError(f"'{name}' gives no image classifier: {str(error).splitlines()[0][:160]}") from error
    return Classifier(model.eval(), _processor(where, False))


def _transformers():
    if importlib.util.find_spec("transformers") is None:
        raise UserError("names that start with 'hf:' need the package transformers: pip install transformers")
    import transformers

    return transformers


@contextlib.contextmanager
def _quiet():
    """Without transformers' own bars and warnings."""
    transformers = _transformers()
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _processor(where: str, download: bool) -> dict:
    """The image processor's configuration, empty where there is none."""
    path = Path(where) / "preprocessor_config.json"
    if not Path(where).is_dir():
        from transformers.utils import cached_file

        try:
            path = Path(cached_file(where, path.name, local_files_only=not download))
        except Exception as error:
            log.warning("no image processor of '%s': %s", where, str(error).splitlines()[0][:100])
            return {}
    if not path.is_file():
        log.warning("%s is missing: mean and std 0.5; pass --mean and --std for others", path)
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _size(processor: dict, cfg) -> tuple[int, int]:
    """(H, W) that the model sees after its processor."""
    found = processor.get("crop_size") if processor.get("do_center_crop") else None
    found = found or processor.get("size") or getattr(cfg, "image_size", None) or 224
    if isinstance(found, dict):
        found = (found["height"], found["width"]) if "height" in found else found.get("shortest_edge") or 224
    sides = (found, found) if isinstance(found, int) else tuple(found)
    return int(sides[0]), int(sides[1])
