"""Groups of options that several scripts share; the options of one job stand in its own folder.

A field made with `option` becomes a flag of its name, with dashes; `main.common.cli` builds the parser. A
recipe or a checkpoint may set options whose default is None, see `main.common.recipes`.
"""

import dataclasses
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, dataclass_transform

from ltx.config import ACTIVATIONS, DATA, DIRECT, FILLS, MASK_LOSSES, MASK_SCALES, RECIPES, RESIZES


def option(default, help, *, flag=None, choices=None, metavar=None, group=None, free=None):
    """Return a dataclass field that becomes a flag.

    Args:
        default: default value; the field's annotation decides how the flag is parsed.
        help: one line for `--help`.
        flag: name of the flag if it is not the field's; a name without dashes is positional.
        choices: allowed values.
        metavar: name of the value in `--help`; `KIND|word` allows a word in place of a number.
        group: heading in `--help` (default: that of the class).
        free: whether the value leaves results unchanged, so that a run may resume with another one (default:
            as the class).
    """
    meta = {"help": help, "flag": flag, "choices": choices, "metavar": metavar, "group": group, "free": free}
    return dataclasses.field(default=default, metadata=meta)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def options(group: str = "options", free: bool = False):
    """Decorate a frozen dataclass of options; `group` and `free` hold for its own fields."""

    def decorate(cls: type) -> type:
        for field in vars(cls).values():
            if isinstance(field, dataclasses.Field):
                meta = dict(field.metadata)
                meta["group"] = meta["group"] or group
                meta["free"] = free if meta["free"] is None else meta["free"]
                field.metadata = MappingProxyType(meta)
        return dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    return decorate


@options("run", free=True)
class DeviceOptions:
    """Device and log level."""

    device: str = option("auto", "device to compute on", choices=("auto", "cpu", "cuda", "mps"))
    verbose: bool = option(False, "log each step to standard error")


@options("run", free=True)
class ReadOptions:
    """Reading of images, and log level."""

    num_workers: int = option(2, "processes that read images (0: the main process reads them)")
    verbose: bool = option(False, "log each step to standard error")


@options("run", free=True)
class RunOptions(DeviceOptions, ReadOptions):
    """Device, reading processes and log level; none of them changes results."""


@options("run", free=True)
class BadImageOptions:
    """Handling of unreadable images."""

    on_bad_image: str = option("skip", "skip and list unreadable images, or fail", choices=("skip", "fail"))


@options("run")
class SpeedOptions:
    """Speed of the networks."""

    precision: str = option("float32", "bf16: autocast networks, float32 losses", choices=("float32", "bf16"))
    compile: bool = option(False, "torch.compile the explainee, and the explainer in pretraining", free=True)


@options("shards", free=True)
class ShardOptions:
    """Share of one process in a run; by default read from the environment of torchrun or a Slurm array."""

    num_shards: int | None = option(None, "number of processes that share this run")
    shard_index: int | None = option(None, "index of this process, from 0")


@options("models", free=True)
class DownloadOptions:
    """Network access; without the flag no script opens a connection."""

    download: bool = option(False, "download timm weights that are not cached (nothing else is downloaded)")


@options("models")
class ModelOptions(DownloadOptions):
    """Model to explain."""

    explainee_model_name: str = option(
        "vit_base_224", "alias, timm name, local-dir:FOLDER (of timm) or hf:FOLDER of the explainee"
    )
    explainee_checkpoint: Path | None = option(
        None, "explainee weights (.safetensors, .pth, .ckpt)", free=True
    )
    mean: tuple[float, ...] | None = option(
        None,
        "mean of its normalisation, one value or one per channel, for pixels in [0, 1] (default: its own)",
    )
    std: tuple[float, ...] | None = option(None, "standard deviation of its normalisation, likewise")
    input_size: tuple[int, ...] | None = option(
        None, "height and width that it takes, or one side of a square (default: its own)", metavar="N"
    )
    resize: str = option(
        DIRECT,
        "how pictures get that size: direct (released), or centre-crop as timm's evaluation does",
        choices=RESIZES,
    )
    multi_label: bool = option(False, "its classes are independent (sigmoid): several may be in one picture")
    seed: int = option(42, "random seed")


@options("models")
class TargetOptions:
    """Class to explain."""

    train_model_by_target_gt_class: bool = option(False, "explain the true class (target), not the predicted")


@options("models")
class ExplaineeOptions(TargetOptions, ModelOptions):
    """Model and class to explain, and the class that scores."""

    score_class: str = option(
        "explained",
        "class that selects steps and is scored: the explained, the true (target) or the predicted one",
        choices=("explained", "target", "predicted"),
    )


@options("objective")
class ObjectiveOptions:
    """Training objective; what no flag sets is as the recipe, else as in the checkpoint's training."""

    mask_loss: str | None = option(None, "loss on the mask's size (default: bce)", choices=MASK_LOSSES)
    mask_loss_mul: float | None = option(None, "weight of the mask loss (default: 50; vit_small_224: 30)")
    prediction_loss_mul: float | None = option(None, "weight of the prediction loss (default: 1)")
    use_logits_only: bool | None = option(None, "minimise -logit, not cross entropy (default: False)")
    is_ce_neg: bool | None = option(None, "subtract the inverse mask's loss, and halve (default: False)")
    mask_fill: str | None = option(None, "fill of removed pixels in the loss (default: black)", choices=FILLS)
    order_loss_mul: float | None = option(None, "weight of the order loss, of cuts of the mask (default: 0)")
    order_removal_mul: float | None = option(
        None, "order loss: weight of the image without the pixels (default: 1)"
    )
    order_samples: int | None = option(None, "order loss: number of sizes in each step (default: 2)")
    smooth_loss_mul: float | None = option(None, "weight of the mask's total variation (default: 0)")


@options("models")
class ExplainerOptions(ObjectiveOptions):
    """Explainer and its training objective."""

    stage: ClassVar[str] = "finetuning"

    recipe: str | None = option(
        None,
        "values of options that no flag sets, and the explainer pretrained with them: the paper's or ours "
        "(default: released; with --explainer-checkpoint that of its training)",
        choices=tuple(RECIPES),
    )
    explainer_model_name: str | None = option(
        None, "alias or timm name of the explainer (default: explainee)"
    )
    explainer_checkpoint: Path | None = option(
        None, "pLTX weights: file or folder of a training run", free=True
    )
    explainer_model_n_first_layers_to_freeze: int = option(0, "freeze the first N blocks", metavar="N")
    activation_function: str | None = option(
        None,
        "activation of the mask (default: as the checkpoint; else sigmoid, or softmax without training)",
        choices=ACTIVATIONS,
    )
    mask_scale: int | None = option(
        None,
        "mask rows and columns per token or last feature (default: as the checkpoint; 1 in pretraining)",
        choices=MASK_SCALES,
    )
    mask_halo: float | None = option(
        None,
        "share of the blurred mask to add, so that outer pixels are ranked by nearness (default: as the "
        "checkpoint; 0 in pretraining)",
    )


@options("models", free=True)
class ConditionOptions:
    """Condition of the explainer on a class."""

    class_conditional: bool = option(
        False,
        "use an explainer that takes the class as input: one forward pass explains any class (implied by "
        "the checkpoint of such an explainer)",
    )


@options("models")
class PairOptions(ConditionOptions, ExplainerOptions, ExplaineeOptions):
    """Explainer and explainee, and the training objective."""


@options("images")
class LabelOptions:
    """Labels and split of an image set."""

    labels_path: Path | None = option(
        None,
        "CSV with img_name,label (gtsegs_ijcv.mat: index,label), or ILSVRC2012_validation_ground_truth.txt "
        "beside meta.mat (default: labels.csv beside the images)",
        free=True,
    )
    split: str | None = option(
        None,
        "split to use: column 'split' of the CSV (gtsegs_ijcv.mat without it: tune has the even indices, "
        "report the odd ones; default for digits: test, coco: val2017, voc: val)",
    )


@options("images")
class ImageOptions(LabelOptions):
    """Images."""

    images_path: str | None = option(
        None,
        "folder of images (class folders, or flat), or 'digits' (default: data/imagenet/val; digits for "
        "vit_digits)",
        metavar="DIR",
        free=True,
    )


@options("images")
class SegmentationSetOptions(LabelOptions):
    """Image set with object masks, and the choice of its images."""

    dataset_type: str | None = option(
        None,
        "image set with object masks (default in segmentation: imagenet; digits for vit_digits)",
        choices=("imagenet", "coco", "voc", "digits"),
        free=True,
    )
    segmentation_root: Path = option(DATA, "folder of gtsegs_ijcv.mat, coco/ or voc/", free=True)
    max_images: int | None = option(None, "use at most the first N images", metavar="N")
    manifest: Path | None = option(None, "only the images of this CSV (column 'image')", free=True)
    exclude_manifest: Path | None = option(None, "leave out the images of this CSV", free=True)


@options("images")
class ChosenImageOptions(SegmentationSetOptions, ImageOptions):
    """Images of a folder or of a set with object masks."""


@options("output", free=True)
class PlaceOptions:
    """Place of the results."""

    default_root_dir: Path | None = option(None, "folder of runs (default: checkpoints/ or data/results/)")
    run_name: str | None = option(None, "name of this run's folder (default: made from the options)")


@options("sanity check")
class SanityOptions:
    """Sanity check of saliency maps by randomised weights (Adebayo et al. 2018)."""

    randomise_weights: bool = option(False, "explain the model with random weights, score with its own")


@options()
class EvaluateOptions:
    """Evaluation after the masks are made."""

    evaluate: bool = option(True, "score the masks at the end", free=True)


@options()
class MetricsOptions(EvaluateOptions):
    """Evaluation by perturbation after the masks are made."""

    metrics: str = option("fast", "metrics, as for run_perturbation_eval.py", free=True)
