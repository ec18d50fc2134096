"""Groups of options that several scripts share.

A field made with `option` becomes a command-line flag of the same name (underscores turned to dashes);
`main.common.cli` builds the parser. The options of one job stand in its own folder.
"""
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ltx.config import ACTIVATIONS, DATA, FILLS, MASK_LOSSES, MASK_SCALES, RECIPES, RELEASED


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
class SanityOptions:
    """The sanity check of saliency maps by randomised weights (Adebayo et al. 2018)."""

    randomise_weights: bool = option(
        False,
        "sanity check: explain the model with its weights drawn anew; the true one still scores the maps",
        group="sanity check",
    )
