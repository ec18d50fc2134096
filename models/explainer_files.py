"""Explainers on disk: written, read (ours and the authors'), and found under `checkpoints/`."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltx.config import ALIASES, MASK_SCALES, RECIPES, RELEASED, UserError, recipe_suffix
from ltx.models import published
from ltx.models.checkpoints import load_metadata, load_weights, save_safetensors
from ltx.models.conditioning import LEARNED
from ltx.models.explainer import Explainer
from ltx.models.ownership import EXPLAINEE_SHA256, published_sha256
from ltx.models.registry import InputSpec, input_size, pair_folder

log = logging.getLogger(__name__)

BEST_FILE = "best.safetensors"
_SPEC = "input"  # metadata: size, mean and std


class NoExplainerError(UserError):
    """There is no pLTX explainer of a pair; `other_recipe` is one that has one, or None."""

    def __init__(self, message: str, other_recipe: str | None = None):
        super().__init__(message)
        self.other_recipe = other_recipe


def read_explainer(path: str | Path, name: str | None = None) -> Explainer:
    """A pLTX explainer from one of our files, a training run's folder, or one of the authors' files.

    Args:
        path: the file or folder.
        name: alias or timm name, where the file does not say.

    Raises:
        UserError: no such file, a damaged one, or one that fits no architecture.
    """
    path = Path(path) / BEST_FILE if Path(path).is_dir() else Path(path)
    metadata = load_metadata(path) if path.suffix == ".safetensors" and path.is_file() else {}
    name = name or metadata.get("explainer") or published_alias(load_weights(path), path)
    activation = metadata.get("activation", "sigmoid")
    explainer = Explainer.untrained(
        name,
        activation,
        class_rows=stored_class_rows(path),
        mask_scale=stored_mask_scale(path),
        spec=stored_spec(path, name),
    )
    load_explainer(path, explainer)
    return explainer


def stored_class_rows(path: Path) -> Tensor | int | None:
    """Return the `class_rows` with which `Explainer` fits a file; None if it is not class-conditional.

    Raises:
        UserError: the file is damaged.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    kind = load_metadata(path).get("class_conditional")
    if kind is None:
        return None
    rows = load_weights(path).get("condition.rows")
    if rows is None:
        raise UserError(f"{path} calls itself class-conditional and has no 'condition.rows'; is it whole?")
    return len(rows) if kind == LEARNED else rows


def stored_mask_scale(path: Path) -> int:
    """Scale of a file's masks, see `Explainer`; the authors' files have 1.

    Raises:
        UserError: the file is damaged.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return 1
    text = load_metadata(path).get("mask_scale", "1")
    if str(text) not in map(str, MASK_SCALES):
        raise UserError(
            f"{path} says mask_scale '{text}', which is none of {MASK_SCALES}; is it one of ours?"
        )
    return int(text)


def stored_spec(path: Path, name: str) -> InputSpec | None:
    """Size and normalisation of a file's explainer; None where they are its backbone's own."""
    metadata = load_metadata(path) if path.suffix == ".safetensors" and path.is_file() else {}
    if _SPEC not in metadata:
        return None
    return InputSpec(*(tuple(metadata[_SPEC][key]) for key in ("size", "mean", "std")))


def _own_spec(explainer: Explainer) -> dict[str, list] | None:
    """The stored specification, where it differs from that of the explainer's name."""
    mean, std = (values.flatten().tolist() for values in (explainer.mean, explainer.std))
    found = {"size": list(explainer.input_size), "mean": mean, "std": std}
    try:
        if tuple(explainer.input_size) == tuple(input_size(explainer.name)) and len(mean) == 3:
            return None
    except UserError:
        return found if len(mean) != 3 else None
    return found


def save_explainer(
    path: Path, explainer: Explainer, explainee_name: str, metadata: dict, half: bool = False
) -> None:
    """Write an explainer's weights with what they belong to; `half` stores them in float16."""
    tensors = explainer.state_dict()
    if half:
        tensors = {
            key: value.half() if value.is_floating_point() else value for key, value in tensors.items()
        }
    names: dict[str, Any] = {
        "explainer": explainer.name,
        "explainee": explainee_name,
        "activation": explainer.activation,
    }
    if explainer.mask_scale != 1:
        names["mask_scale"] = explainer.mask_scale
    if (spec := _own_spec(explainer)) is not None:
        names[_SPEC] = spec
    if explainer.halo:
        names["mask_halo"] = explainer.halo
    if explainer.condition is not None:
        names["class_conditional"] = explainer.condition.kind
    save_safetensors(path, tensors, names | metadata)


def load_explainer(path: Path, explainer: Explainer) -> dict:
    """Load weights in place, from our files or the authors', and return their metadata.

    Raises:
        UserError: the file is missing or belongs to another architecture (the first mismatch is named).
    """
    path = Path(path)
    tensors = load_weights(path)
    metadata = load_metadata(path) if path.suffix == ".safetensors" else {}
    pair = published.split(tensors)
    if pair is not None:
        tensors, metadata = pair.explainer, metadata | {"published": True}
        metadata[EXPLAINEE_SHA256] = published_sha256(explainer.name, pair.explainee)
    if _SPEC in metadata and tuple(metadata[_SPEC]["size"]) != tuple(explainer.input_size):
        size = " x ".join(map(str, metadata[_SPEC]["size"]))
        raise UserError(f"the explainer in {path} takes images of {size}, unlike the one it is to fill")
    if bool(metadata.get("class_conditional")) != explainer.class_conditional:
        is_not = "is" if metadata.get("class_conditional") else "is not"
        raise UserError(f"the explainer in {path} {is_not} class-conditional, unlike the one it is to fill")
    own = explainer.state_dict()
    for key, value in own.items():
        if key not in tensors or tensors[key].shape != value.shape:
            found = tuple(tensors[key].shape) if key in tensors else "missing"
            raise UserError(
                f"{path} does not fit explainer '{explainer.name}': '{key}' is {found}, "
                f"wanted {tuple(value.shape)}"
            )
    explainer.load_state_dict({key: tensors[key].to(value.dtype) for key, value in own.items()})
    if pair is not None:
        published.as_published(explainer, pair)
    trained_with = metadata.get("activation", explainer.activation)
    if trained_with != explainer.activation:
        log.warning("%s was trained with activation '%s', which is used", path, trained_with)
    explainer.activation, explainer.metadata = trained_with, metadata
    explainer.halo = _stored_halo(metadata, path)
    return metadata


def _stored_halo(metadata: dict, path: Path) -> float:
    text = metadata.get("mask_halo", "0")
    try:
        halo = float(text)
    except (TypeError, ValueError):
        halo = -1.0
    if not 0 <= halo < 1:
        raise UserError(f"{path} says mask_halo '{text}', which is not in [0, 1); is it one of ours?")
    return halo


def published_alias(tensors: dict[str, Tensor], path: Path) -> str:
    """Alias of the published pair that a file's tensors are.

    Raises:
        UserError: they are no published pair.
    """
    pair = published.split(tensors)
    if pair is None:
        raise UserError(f"{path} is no published LTX checkpoint: it has no 'vit_for_patch_classification.*'")
    found = {key: tuple(value.shape) for key, value in pair.explainer.items()}
    names = [name for name, alias in ALIASES.items() if alias.published]
    for name in names:
        with torch.device("meta"):
            wanted = Explainer.untrained(name).state_dict()
        if found == {key: tuple(value.shape) for key, value in wanted.items()}:
            return name
    raise UserError(f"the explainer in {path} fits none of the published pairs ({', '.join(names)})")


def run_kind(by_target: bool, class_conditional: bool = False, recipe: str = RELEASED) -> str:
    """Folder of a training run below its pair's: a class-conditional one is asked for any class."""
    kind = "class_conditional" if class_conditional else "target" if by_target else "predicted"
    return kind + recipe_suffix(recipe)


def find_explainer(
    explainer_name: str,
    explainee_name: str,
    by_target: bool,
    given: Path | None,
    class_conditional: bool = False,
    recipe: str = RELEASED,
) -> Path:
    """The pLTX checkpoint of a pair: `given` (a file or a training run's folder), else in `checkpoints/`.

    There our own `best` comes first, then the authors' file, which only the released recipe takes by itself.

    Raises:
        UserError: there is none, or several published ones; the message says what to put where.
    """
    kind = run_kind(by_target, class_conditional, recipe)
    folder = pair_folder(explainer_name, explainee_name)
    if given is not None and Path(given).is_file():
        return Path(given)
    ours = folder / kind / BEST_FILE if given is None else Path(given) / BEST_FILE
    if ours.is_file():
        return ours
    if given is None:
        files = published.published_files(folder, kind)
    else:
        files = published.published_files(Path(given), run_kind(by_target, class_conditional))
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(path.name for path in files)
        raise UserError(
            f"{files[0].parent} holds several published files ({names}); pass one with --explainer-checkpoint"
        )
    where = f"--explainer-checkpoint {given}: no such file or training run" if given else f"{ours} not found"
    advice = _what_to_put_where(explainer_name, explainee_name, folder, kind, class_conditional, recipe)
    other = None if given else _recipe_with_explainer(folder, by_target, class_conditional)
    if other is not None:
        advice = f"add --recipe {other}, which has one, or {advice}"
    raise NoExplainerError(
        f"no pLTX explainer for the pair {explainer_name} / {explainee_name} ({kind}): {where}; {advice}",
        other,
    )


def _recipe_with_explainer(folder: Path, by_target: bool, class_conditional: bool) -> str | None:
    """The first recipe that has an explainer of this kind in the pair's folder."""
    for recipe in RECIPES:
        if (folder / run_kind(by_target, class_conditional, recipe) / BEST_FILE).is_file():
            return recipe
    return None


def _what_to_put_where(
    explainer_name: str, explainee_name: str, folder: Path, kind: str, class_conditional: bool, recipe: str
) -> str:
    alias = ALIASES.get(explainer_name)
    flags = " --class-conditional True" if class_conditional else ""
    flags += f" --recipe {recipe}" if recipe != RELEASED else ""
    own = f"train one with main/seg_classification/run_seg_cls.py{flags} or pass --explainer-checkpoint FILE"
    published_pair = alias is not None and alias.published and explainer_name == explainee_name
    if flags or not published_pair:
        return own
    pattern = published.PATTERN.format(kind=kind)
    return f"put the authors' {pattern} into {folder} (it holds the explainee too), or {own}"
