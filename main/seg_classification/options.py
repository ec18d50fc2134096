"""Options of pretraining and of making LTX masks."""
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ltx.main.common.options import (
    BadImageOptions,
    ChosenImageOptions,
    ImageOptions,
    PairOptions,
    PlaceOptions,
    RunOptions,
    SanityOptions,
    ShardOptions,
    SpeedOptions,
    option,
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
        "auto", "images finetuned side by side at most; auto: what fits the memory", metavar="N|auto",
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
