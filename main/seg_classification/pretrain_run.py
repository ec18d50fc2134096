"""A run of pLTX pretraining: its images, its folder and its pictures around a `Trainer`."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from ltx.config import UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.build import rebuild
from ltx.datasets.digits import MIXED, DigitsOnPhotos
from ltx.datasets.manifest import draw_per_class, draw_total, from_manifest
from ltx.main.common.devices import speed_up
from ltx.main.common.drawing import CELL_TITLES, cells
from ltx.main.common.figures import write_sheet
from ltx.main.common.launch import World
from ltx.main.common.recipes import RECIPE
from ltx.main.runs.build_images import needs_labels, open_image_set
from ltx.main.runs.build_models import (
    RANDOMISED_EXPLAINEE,
    explainee_record,
    explainer_name,
    model_to_explain,
    new_explainer,
    settled,
    start_from_plain,
    with_explainer_named,
)
from ltx.main.runs.run_folder import open_run, write_manifest
from ltx.main.seg_classification.options import PretrainOptions
from ltx.main.seg_classification.pretraining import Plan, Trainer
from ltx.models.checkpoints import weights_sha256
from ltx.models.explainee import Explainee
from ltx.models.explainer_files import run_kind
from ltx.models.losses import Objective
from ltx.models.ownership import ownership
from ltx.models.registry import pair_folder

_DIGIT_ROUNDS = 20
_PICTURES = 8


def pretrain(
    options: PretrainOptions, explainee: Explainee, device: torch.device, world: World | None = None
) -> tuple[Path, list[dict]]:
    """Pretrains an explainer for the pair of the options.

    Args:
        options: what to train, on what, how long.
        explainee: on the device.
        device: where to compute.
        world: the processes that train together; default this one alone.

    Returns:
        The run folder and one row of figures per epoch.

    Raises:
        UserError: too few images, missing labels, another run in the folder, ...
    """
    options, world = settled(with_explainer_named(options)), world or World()
    train_set, train, val_set, val = choose(options, explainee)
    needs_labels(train_set, train, options)
    needs_labels(val_set, val, options)
    folder = run_folder(options)
    record, owner = explainee_record(options, explainee), ownership(explainee)
    explainee = model_to_explain(explainee, options)
    explainer = new_explainer(options, explainee, options.mask_scale or 1).to(device)
    if options.freeze_backbone:
        explainer.backbone.requires_grad_(False)
    starts_fresh = options.randomise_weights or options.freeze_backbone
    if options.class_conditional and (options.explainer_checkpoint or not starts_fresh):
        print(f"starts from {start_from_plain(options, explainer, explainee) or 'a fresh head'}")
    plan = make_plan(options, len(train))
    names = {
        key: hashlib.sha256("\n".join(images.names[i] for i in chosen).encode()).hexdigest()
        for key, images, chosen in (("train", train_set, train), ("val", val_set, val))
    }
    identity = {
        "explainee": weights_sha256(explainee.model),
        "start": weights_sha256(explainer),
        "images": names,
    }
    about = {
        "method": "pltx",
        "explainee": record,
        "explainer": explainer.name,
        "dataset": val_set.describe(),
        "train_dataset": train_set.describe(),
        "n_train": len(train),
        "n_val": len(val),
        "highest_rate": plan.highest_rate(len(train)),
    }
    run = world.first(lambda: open_run(folder, options, identity, about))
    if world.is_main:
        write_manifest(folder / "train_manifest.csv", train_set, train)
        write_manifest(folder / "val_manifest.csv", val_set, val)
    speed_up(options, explainee, explainer)
    if options.compile:
        explainer.compile(dynamic=True)
    print(
        f"training on {len(train)} images, validating on {len(val)}; the rate will reach "
        f"{plan.highest_rate(len(train)):.3g} of --lr {plan.lr:g} "
        f"(schedule sized on {plan.schedule_images} images)"
    )
    objective = Objective.from_options(options)
    trainer = Trainer(
        explainer, explainee, objective, train_set, train, val_set, val, plan, folder,
        {
            "run_hash": run.hash,
            "class": "target" if options.train_model_by_target_gt_class else "predicted",
            "objective": dataclasses.asdict(objective),
            RANDOMISED_EXPLAINEE: options.randomise_weights,
            RECIPE: options.recipe,
            **owner,
        },
        world,
    )  # fmt: skip
    return folder, trainer.run(_write_pictures if options.enable_checkpointing else lambda *_: None)


def run_folder(options: PretrainOptions) -> Path:
    """`checkpoints/<pair>/<target|predicted|class_conditional>[-<recipe>][-randomised]`, or as named."""
    pair = pair_folder(explainer_name(options), options.explainee_model_name)
    root = options.default_root_dir / pair.name if options.default_root_dir else pair
    kind = run_kind(options.train_model_by_target_gt_class, options.class_conditional, options.recipe)
    return root / (options.run_name or kind + ("-randomised" if options.randomise_weights else ""))


def make_plan(options: PretrainOptions, n_train: int) -> Plan:
    """Schedule and sizes of settled options."""
    if min(options.n_epochs, options.batch_size, options.save_every, options.accumulate) < 1:
        raise UserError("--n-epochs, --batch-size, --save-every and --accumulate must be at least 1")
    # Whole batches: the released sizing rounds down, and would leave an epoch's last batch a rate of 0.
    own_size = math.ceil(n_train / options.batch_size) * options.batch_size
    return Plan(
        n_epochs=options.n_epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        weight_decay=options.weight_decay,
        schedule_images=options.schedule_images or own_size,
        by_target=options.train_model_by_target_gt_class,
        score_class=options.score_class,
        seed=options.seed,
        checkpoints=options.enable_checkpointing,
        half=options.half_checkpoints,
        save_every=options.save_every,
        num_workers=options.num_workers,
        accumulate=options.accumulate,
        absent_weight=options.absent_loss_mul,
        augment=options.augment,
        skip_bad=options.on_bad_image == "skip",
    )


def choose(options: PretrainOptions, explainee: Explainee) -> tuple[ImageSet, list[int], ImageSet, list[int]]:
    """Training set and positions, validation set and positions.

    Both come from the same images, drawn with the seed, unless manifests, splits or folders set them apart.
    Digits: training from the first 1,200 training digits, validation from the last 200; a class-conditional
    explainer is trained on pictures of one and of two digits in equal parts.
    """
    val_set = open_image_set(options, explainee)
    if isinstance(val_set, DigitsOnPhotos) and options.split is None and options.train_split is None:
        train_set, val_set = (
            DigitsOnPhotos(split, _DIGIT_ROUNDS * size, explainee.input_size, n_digits=n_digits)
            for split, size, n_digits in (
                ("fit", 1200, MIXED if options.class_conditional else 1),
                ("tune", 200, 1),
            )
        )
    elif options.train_images_path or options.train_split:
        train_set = open_image_set(options, explainee, options.train_images_path, options.train_split)
    else:
        train_set = None
    if train_set is None and not (options.train_manifest or options.val_manifest):
        train, val = _draw(options, val_set)
        return val_set, train, val_set, val
    train_set = train_set or rebuild(val_set.describe(), explainee.input_size)
    train = from_manifest(options.train_manifest, train_set) if options.train_manifest else None
    val = from_manifest(options.val_manifest, val_set) if options.val_manifest else None
    same = train_set.describe() == val_set.describe()
    if train is None:
        sizes = options.train_images, options.train_n_label_sample
        train = _draw_one(train_set, *sizes, options.seed, "train", val if same and val else ())
    if val is None:
        sizes = options.val_images, options.val_n_label_sample
        val = _draw_one(val_set, *sizes, options.seed, "val", train if same else ())
    return train_set, train, val_set, val


def _draw(options: PretrainOptions, images: ImageSet) -> tuple[list[int], list[int]]:
    if options.train_images is not None or options.val_images is not None:
        if options.train_images is None or options.val_images is None:
            raise UserError("--train-images and --val-images belong together: pass both")
        return draw_total(len(images), options.train_images, options.val_images, options.seed)
    per_class = (options.train_n_label_sample or 1, options.val_n_label_sample or 1)
    return draw_per_class(images.labels, *per_class, options.seed)


def _draw_one(
    images: ImageSet, total: int | None, per_class: int | None, seed: int, which: str, without: Sequence[int]
) -> list[int]:
    """Positions drawn from one set but for `without`: so many in all, so many per class, or all of them."""
    taken = set(without)
    left = [index for index in range(len(images)) if index not in taken]
    if total is not None:
        if total > len(left):
            raise UserError(f"--{which}-images {total}: there are only {len(left)}")
        return [left[i] for i in draw_total(len(left), total, 0, seed)[0]]
    if per_class is not None:
        return [left[i] for i in draw_per_class([images.labels[i] for i in left], per_class, 0, seed)[0]]
    if not left:
        raise UserError(f"no images are left for {which}; pass another --{which}-manifest")
    return left


def _write_pictures(trainer: Trainer, first: dict[str, torch.Tensor]) -> None:
    rows = [cells(image, saliency) for image, saliency in zip(first["images"], first["maps"], strict=True)]
    path = trainer.folder / "pictures" / f"epoch_{trainer.epoch - 1:03d}.png"
    write_sheet(path, rows[:_PICTURES], CELL_TITLES)
