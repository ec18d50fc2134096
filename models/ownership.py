"""The explainee that an explainer was trained for: its weights' hash, kept in the explainer's metadata."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from ltx.models import published
from ltx.models.checkpoints import load_metadata, load_weights, tensors_sha256
from ltx.models.registry import create_model

log = logging.getLogger(__name__)

EXPLAINEE_SHA256, NUM_CLASSES = "explainee_sha256", "num_classes"


def ownership(explainee) -> dict[str, str | int]:
    """Metadata that names the explainee of an explainer."""
    return {EXPLAINEE_SHA256: explainee.sha256, NUM_CLASSES: explainee.num_classes}


def published_sha256(name: str, weights: dict[str, Tensor]) -> str | None:
    """The hash that a published explainee's weights have once they are loaded, None where they do not fit.

    Args:
        name: alias of the pair.
        weights: the explainee's, in timm's names.
    """
    with torch.device("meta"):
        own = create_model(name).state_dict()
    if own.keys() != weights.keys():
        return None
    return tensors_sha256({key: weights[key].to(value.dtype) for key, value in own.items()})


def trained_for(path: Path, name: str) -> str | None:
    """Hash of the explainee's weights that a file's explainer was trained for, None where nothing says.

    Args:
        path: our file or the authors'.
        name: alias of the explainer.

    Raises:
        UserError: the file cannot be read.
    """
    metadata = load_metadata(path) if path.suffix == ".safetensors" else {}
    if EXPLAINEE_SHA256 in metadata:
        return metadata[EXPLAINEE_SHA256]
    if path.suffix == ".safetensors" and not metadata.get("published"):
        return None
    pair = published.split(load_weights(path))
    return None if pair is None else published_sha256(name, pair.explainee)


def difference(sha256: str | None, explainee) -> str | None:
    """In words, that a hash is not the explainee's; None where it is, or where there is no hash."""
    if sha256 is None or sha256 == explainee.sha256:
        return None
    return (
        f"was trained for another explainee (weights {sha256[:12]}; those of '{explainee.name}' are "
        f"{explainee.sha256[:12]})"
    )


def warn_of_stranger(explainer, explainee) -> None:
    """Says, once per pair, that an explainer was trained for another explainee."""
    found = difference((explainer.metadata or {}).get(EXPLAINEE_SHA256), explainee)
    if found is not None and explainee.sha256 not in explainer.said:
        explainer.said.add(explainee.sha256)
        log.warning(
            "the explainer '%s' %s; its maps may have nothing to do with this one", explainer.name, found
        )
