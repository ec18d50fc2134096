"""From options to the image set of a run, and to those of its images that are chosen."""

from ltx.config import DIGITS, UserError
from ltx.datasets.base import ImageSet
from ltx.datasets.build import open_images, open_segmentation
from ltx.datasets.imagenet import check_labels
from ltx.datasets.manifest import from_manifest, read_names
from ltx.main.runs.explainee_input import wanted_size
from ltx.models.explainee import Explainee


def choose_images(images: ImageSet, options) -> list[int]:
    """Positions of the images that `ChosenImageOptions` ask for.

    Raises:
        UserError: none are left.
    """
    chosen = from_manifest(options.manifest, images) if options.manifest else list(range(len(images)))
    if options.exclude_manifest:
        excluded = set(read_names(options.exclude_manifest))
        chosen = [index for index in chosen if images.names[index] not in excluded]
    if options.max_images is not None:
        chosen = chosen[: options.max_images]
    if not chosen:
        raise UserError("no images are left; look at --max-images, --manifest and --exclude-manifest")
    return chosen


def needs_labels(images: ImageSet, chosen: list[int], options) -> None:
    """Raise `UserError` where the true class is asked for and an image has none."""
    if options.train_model_by_target_gt_class or options.score_class == "target":
        missing = next((images.names[index] for index in chosen if images.labels[index] < 0), None)
        if missing is not None:
            by_target = options.train_model_by_target_gt_class
            flag = "--train-model-by-target-gt-class True" if by_target else "--score-class"
            raise UserError(f"{flag} needs labels and image {missing} has none; pass --labels-path")


def images_of(options) -> ImageSet:
    """The image set of the options, at the size that the explainee's name gives.

    Needs no weights, so that a missing set is reported before any are looked for.

    Args:
        options: `ExplaineeOptions` with `ImageOptions` or `SegmentationSetOptions`; of both, a `dataset_type`
            decides. Without either, digits for `vit_digits`, else the ImageNet set.

    Raises:
        UserError: no such images or explainee.
    """
    return _open(options, wanted_size(options))


def open_image_set(
    options, explainee: Explainee, images_path: str | None = None, split: str | None = None
) -> ImageSet:
    """The images of the options at the explainee's size, their labels within its classes.

    Args:
        options: see `images_of`.
        explainee: gives size and classes.
        images_path: instead of the options'.
        split: instead of the options'.

    Raises:
        UserError: no such images, or a label outside the classes.
    """
    images = _open(options, explainee.input_size, images_path, split)
    check_labels(images, explainee.num_classes)
    return images


def _open(
    options, size: tuple[int, int], images_path: str | None = None, split: str | None = None
) -> ImageSet:
    dataset_type, digits = (
        getattr(options, "dataset_type", None),
        options.explainee_model_name == "vit_digits",
    )
    split = split or options.split
    if hasattr(options, "images_path"):
        path = images_path or options.images_path
        if dataset_type is None:
            return open_images(path, options.labels_path, split, size, digits)
        if path:
            raise UserError("--images-path and --dataset-type exclude each other; pass one of them")
    dataset_type = dataset_type or (DIGITS if digits else "imagenet")
    return open_segmentation(dataset_type, options.segmentation_root, options.labels_path, split, size)
