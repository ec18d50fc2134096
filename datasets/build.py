"""Image sets by what the user names, and again from what `run.json` says; batches of them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ltx import config
from ltx.config import DIGITS, UserError
from ltx.datasets.base import BadImageError, ImageSet
from ltx.datasets.coco import CocoSegmentation
from ltx.datasets.digits import DigitsOnPhotos
from ltx.datasets.gtsegs import ImagenetSegmentation
from ltx.datasets.imagenet import open_folder
from ltx.datasets.pictures import PictureFiles
from ltx.datasets.voc import VocSegmentation
from ltx.datasets.workers import dead_worker, out_of_shared_memory, possible_workers, warn_once

# In batches with `skip_bad`: why each image could not be read, "" where it was.
BAD = "bad"
SEGMENTATION_SETS = {"imagenet": ImagenetSegmentation, "coco": CocoSegmentation, "voc": VocSegmentation}


def open_images(
    images_path: str | None,
    labels_path: Path | None,
    split: str | None,
    image_size: tuple[int, int],
    digits: bool,
) -> ImageSet:
    """The image set that the flags name.

    Args:
        images_path: a folder, "digits", or None for the default (`digits` decides: digits, else ImageNet).
        labels_path: file of labels, for folders.
        split: split of the set.
        image_size: (H, W).
        digits: whether digits are the default.

    Raises:
        UserError: there are no such images.
    """
    if images_path == DIGITS or (images_path is None and digits):
        return DigitsOnPhotos(split or "test", image_size=image_size)
    if images_path is None and not config.IMAGENET_VAL.is_dir():
        raise UserError(
            f"no images: {config.IMAGENET_VAL} does not exist; put the ImageNet validation set there or pass "
            "--images-path (a folder, or 'digits')"
        )
    return open_folder(Path(images_path or config.IMAGENET_VAL), image_size, labels_path, split)


def open_segmentation(
    dataset_type: str,
    root: Path,
    labels_path: Path | None,
    split: str | None,
    image_size: tuple[int, int],
) -> ImageSet:
    """An image set with object masks.

    Args:
        dataset_type: "digits" or one of `SEGMENTATION_SETS`.
        root: folder that holds it.
        labels_path: file of labels; default the one beside the set.
        split: split of the set.
        image_size: (H, W).

    Raises:
        UserError: it is not there, or is damaged.
    """
    if dataset_type == DIGITS:
        return DigitsOnPhotos(split or "test", image_size=image_size)
    return SEGMENTATION_SETS[dataset_type](Path(root), image_size, labels_path, split)


def rebuild(description: Mapping[str, Any], image_size: Sequence[int]) -> ImageSet:
    """The image set of an `ImageSet.describe()`.

    Raises:
        UserError: its files are no longer there.
    """
    height, width = image_size
    size = (height, width)
    kind, rest = description["kind"], {key: value for key, value in description.items() if key != "kind"}
    if kind == "files":
        return PictureFiles(Path(rest["root"]), rest["names"], size)
    if kind == DIGITS:
        return DigitsOnPhotos(image_size=size, **rest)
    makers: dict[str, Any] = {"folder": open_folder} | {
        images.kind: images for images in SEGMENTATION_SETS.values()
    }
    if kind not in makers:
        raise UserError(f"unknown kind of image set: {kind}")
    labels = Path(rest["labels"]) if rest["labels"] else None
    return makers[kind](Path(rest["root"]), size, labels, rest["split"])


def batches(
    images: ImageSet,
    chosen: Sequence[int],
    batch_size: int,
    num_workers: int = 0,
    pin: bool = False,
    skip_bad: bool = False,
) -> Iterator[dict[str, Any]]:
    """Batches of the chosen images, in that order; see `groups`."""
    cut = [list(chosen[i : i + batch_size]) for i in range(0, len(chosen), batch_size)]
    return groups(images, cut, num_workers, pin, skip_bad)


def groups(
    images: ImageSet,
    cut: Sequence[Sequence[int]],
    num_workers: int = 0,
    pin: bool = False,
    skip_bad: bool = False,
) -> Iterator[dict[str, Any]]:
    """One batch for each group of positions.

    Where shared memory for worker processes runs out, this process reads what is left.

    Args:
        images: the image set.
        cut: positions of each batch.
        num_workers: processes that read.
        pin: into pinned memory, for CUDA.
        skip_bad: a black image stands for one that cannot be read, and `BAD` in each batch says of every
            image why it could not be read, "" where it was.

    Raises:
        UserError: an image cannot be read, or a process that reads has died.
    """
    workers = possible_workers(min(num_workers, len(cut)))
    source = Tolerant(images) if skip_bad else images
    loader = DataLoader(source, batch_sampler=cut, num_workers=workers, pin_memory=pin)
    failure, done = None, 0
    try:
        for batch in loader:
            done += 1
            yield batch
        return
    except UserError as error:
        # What a worker process raises arrives with its traceback around it; the last line is the message.
        failure = re.sub(r"^[\w.]*(UserError|BadImageError): ", "", str(error).strip().splitlines()[-1])
        # Its frames hold the loader, which would then end its workers late and after a long wait.
        error.__traceback__ = None
    except RuntimeError as error:
        failure = dead_worker(error)
        if failure is None and not (workers and out_of_shared_memory(error)):
            raise
        error.__traceback__ = None
    del loader
    if failure is not None:
        raise UserError(failure)
    warn_once("/dev/shm is too small for the processes that read images; this process reads them")
    yield from groups(images, cut[done:], 0, pin, skip_bad)


class Tolerant(Dataset):
    """Images with the reason why one cannot be read, in whose place a black one stands."""

    def __init__(self, images: ImageSet):
        self.images = images

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return self.images[index] | {BAD: ""}
        except BadImageError as error:
            reason = str(error)
        size = self.images.image_size
        sample = {"image": torch.zeros(3, *size), "label": self.images.labels[index], "index": index}
        sample[BAD] = reason
        return sample | ({"mask": torch.zeros(size, dtype=torch.long)} if self.images.has_masks else {})


def stack(images: ImageSet, chosen: Sequence[int]) -> torch.Tensor:
    """A few images (B, 3, H, W)."""
    return torch.stack([images[index]["image"] for index in chosen])
