"""Options of pretraining and of LTX masks."""

from pathlib import Path
from typing import ClassVar

from ltx.main.common import options as common
from ltx.main.common.options import option, options


@options("training")
class PretrainOptions(
    common.RunOptions,
    common.BadImageOptions,
    common.SpeedOptions,
    common.PlaceOptions,
    common.ImageOptions,
    common.PairOptions,
):
    """`run_seg_cls.py`: pLTX pretraining."""

    stage: ClassVar[str] = "pretraining"
    ignored_flags: ClassVar = ("--RUN-BASE-MODEL", "--optimize-by-pos", "--n_epochs_to_optimize_stage_b")

    n_epochs: int = option(30, "number of epochs")
    batch_size: int = option(32, "images per step, over all processes")
    accumulate: int = option(1, "compute each step in N parts, for less memory", metavar="N", free=True)
    lr: float | None = option(None, "peak learning rate (default: 2e-4; published pairs: 2e-3)")
    weight_decay: float = option(0.01, "weight decay of AdamW")
    schedule_images: int | None = option(
        None,
        "images per epoch that the learning-rate schedule assumes (default: the training images; published "
        "pairs: 50000)",
        metavar="N",
    )
    absent_loss_mul: float = option(
        0.5,
        "class-conditional: weight of the mask loss for absent classes, relative to present ones (nothing "
        "opposes it, so large values empty all masks)",
    )
    freeze_backbone: bool = option(False, "train only the head, on features of the pretrained backbone")
    augment: bool = option(False, "train on random crops (at least a third of the image) and mirror images")
    train_n_label_sample: int | None = option(None, "training images per class (default: 1)", metavar="N")
    val_n_label_sample: int | None = option(None, "validation images per class (default: 1)", metavar="N")
    train_images: int | None = option(None, "total number of training images, of any class", metavar="N")
    val_images: int | None = option(None, "total number of validation images, of any class", metavar="N")
    train_manifest: Path | None = option(None, "CSV of the training images", free=True)
    val_manifest: Path | None = option(None, "CSV of the validation images", free=True)
    train_images_path: str | None = option(
        None, "folder to train on (default: --images-path)", metavar="DIR", free=True
    )
    train_split: str | None = option(None, "split of the training images (default: --split)")
    enable_checkpointing: bool = option(True, "save last and best weights, and pictures")
    half_checkpoints: bool = option(False, "store last and best weights in float16")
    save_every: int = option(200, "steps between saves of the resumable state", free=True)
    # Free: the hash of the weights tells such runs apart.
    randomise_weights: bool = option(
        False,
        "pretrain for the model with randomly drawn weights (folder <class>-randomised)",
        group="sanity check",
        free=True,
    )


@options("finetuning")
class RateOptions:
    """Rate and gradients of the finetuning, beside its learning rate."""

    finetune_decay: bool | None = option(
        None,
        "let the rate fall to 0, from half of it over all of it (default: False)",
    )
    kink_width: float | None = option(
        None,
        "round the ReLUs' kinks in the backward pass, so that rounding moves masks less (default: 0)",
    )


@options("finetuning")
class LtxOptions(
    RateOptions,
    common.RunOptions,
    common.BadImageOptions,
    common.SpeedOptions,
    common.ShardOptions,
    common.PlaceOptions,
    common.SanityOptions,
    common.PairOptions,
    common.EvaluateOptions,
):
    """LTX masks of any images, or pLTX masks with --RUN-BASE-MODEL True."""

    ignored_flags: ClassVar[tuple[str, ...]] = (
        "--train-n-label-sample",
        "--val-n-label-sample",
        "--n-epochs",
        "--enable-checkpointing",
    )

    RUN_BASE_MODEL: bool = option(False, "write pLTX masks, without finetuning", flag="--RUN-BASE-MODEL")
    n_epochs_to_optimize_stage_b: int = option(
        25, "finetuning steps per image", flag="--n_epochs_to_optimize_stage_b", metavar="N"
    )
    finetune_lr: float | str | None = option(
        None,
        "constant learning rate, or 'released': continue the checkpoint's optimiser and schedule "
        "(default: 5e-5; ordered: 2e-4, CNNs 5e-4)",
        metavar="RATE|released",
    )
    lr: float | None = option(None, "peak of the schedule of --finetune-lr released (default: 2e-3)")
    optimize_by_pos: bool = option(True, "keep the step with the lowest POS (False: the highest NEG)")
    select_best: bool | None = option(None, "also keep the best step (default: True; ordered: False)")
    early_stop: bool = option(False, "stop at POS < 6 or NEG > 89 (released), keep pltx and best_*")
    batch_size: int | str | None = option(
        None,
        "images finetuned side by side at most, or auto: as many as fit in memory (default: auto; ordered, "
        "CNNs: 4)",
        metavar="N|auto",
        free=True,
    )
    unit_size: int = option(256, "images per mask file", metavar="N")


@options("finetuning")
class FinetuneOptions(LtxOptions, common.MetricsOptions, common.ChosenImageOptions):
    """`run_seg_cls_opt.py`: LTX masks, scored by perturbation."""
