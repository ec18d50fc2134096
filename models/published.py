"""The authors' checkpoints: recognised, and renamed to ours.

A published file is a PyTorch Lightning 1.5 checkpoint that holds an explainee and an explainer: Hugging
Face's ViT names, or torchvision's CNN names with the explainer's backbone numbered as an `nn.Sequential`. One
that `main/convert_checkpoint.py` wrote holds the same two models under our names.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ltx.config import UserError
from ltx.models.checkpoints import load_metadata, load_state, load_weights

PATTERN = "*_{kind}_best_auc__epoch=*.ckpt"
LAYER_NORM_EPS = 1e-12  # Hugging Face's; timm's is 1e-6
_THEIR_EXPLAINEE, _THEIR_EXPLAINER = "vit_for_classification_image.", "vit_for_patch_classification."
_EXPLAINEE, _EXPLAINER = "explainee.", "explainer."
_QKV = re.compile(r"(.*\.attn)\.(query|key|value)\.(weight|bias)")
_VIT_NAMES = (
    ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("vit.embeddings.position_embeddings", "pos_embed"),
    ("vit.embeddings.cls_token", "cls_token"),
    ("vit.encoder.layer.", "blocks."),
    (".attention.attention.", ".attn."),
    (".attention.output.dense", ".attn.proj"),
    (".intermediate.dense", ".mlp.fc1"),
    (".output.dense", ".mlp.fc2"),
    (".layernorm_before", ".norm1"),
    (".layernorm_after", ".norm2"),
    ("vit.layernorm", "norm"),
)
_VIT_HEAD = {"patch_pooler.dense": "head.0", "patch_pooler": "head.0", "patch_classifier": "head.2"}
_RESNET_CHILDREN = {
    "0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4",
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Content of a published file.

    Attributes:
        explainer: state dict of an `Explainer`.
        explainee: state dict of a timm model.
    """

    explainer: dict[str, Tensor]
    explainee: dict[str, Tensor]

    @property
    def is_vit(self) -> bool:
        """True if both are Hugging Face ViTs (their LayerNorm has another eps)."""
        return "backbone.cls_token" in self.explainer


def split(weights: dict[str, Tensor]) -> Pair | None:
    """The two models of a published (or converted) file's tensors; None where they are something else."""
    if any(key.startswith(_THEIR_EXPLAINER) for key in weights):
        explainer = rename_explainer(_below(weights, _THEIR_EXPLAINER))
        return Pair(explainer, rename_explainee(_below(weights, _THEIR_EXPLAINEE)))
    if any(key.startswith(_EXPLAINER) for key in weights):
        return Pair(_below(weights, _EXPLAINER), _below(weights, _EXPLAINEE))
    return None


def holds_pair(path: Path) -> bool:
    """Return whether a file is a published or a converted one.

    Raises:
        UserError: the file cannot be read.
    """
    if Path(path).suffix == ".safetensors":
        return bool(load_metadata(path).get("published"))
    return any(key.startswith(_THEIR_EXPLAINER) for key in load_weights(path))


def join(pair: Pair) -> dict[str, Tensor]:
    """One state dict of both models, which `split` takes apart again."""
    explainer = {_EXPLAINER + key: value for key, value in pair.explainer.items()}
    return explainer | {_EXPLAINEE + key: value for key, value in pair.explainee.items()}


def as_published(module: nn.Module, pair: Pair) -> None:
    """Give a model the LayerNorm eps of the published file whose weights it holds."""
    for part in module.modules():
        if pair.is_vit and isinstance(part, nn.LayerNorm):
            part.eps = LAYER_NORM_EPS


def published_files(folder: Path, kind: str = "") -> list[Path]:
    """Published files in a folder, of one kind ("target", "predicted") or any; their own names first."""
    exact = sorted(Path(folder).glob(PATTERN.format(kind=kind or "*")))
    return exact or sorted(Path(folder).glob(f"*{kind}*.ckpt" if kind else "*.ckpt"))


def rename_explainee(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of a published explainee to timm's."""
    if not any(key.startswith("vit.") for key in tensors):
        return tensors
    return _join_qkv({re.sub("^classifier", "head", _vit_name(key)): value for key, value in tensors.items()})


def rename_explainer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of a published explainer, or of a part of it, to those of our `Explainer`."""
    if any(key.startswith("encoder.") for key in tensors):
        is_densenet = any(key.startswith("encoder.0.conv0.") for key in tensors)
        return {_cnn_name(key, is_densenet): value for key, value in tensors.items()}
    return _join_qkv({_vit_explainer_name(key): value for key, value in tensors.items()})


def training_state(path: Path, trainable: list[str]) -> dict:
    """The optimiser's state in a published file, in the layout of our `best.pt`.

    Args:
        path: published file.
        trainable: names of our explainer's trainable weights, in order.

    Returns:
        `optimizer` (state by position in `trainable`, one group with `lr`) and `global_step`.

    Raises:
        UserError: the file holds no optimiser, or one of other weights.
    """
    state = load_state(path, mmap=True)
    try:
        stored, step = state["optimizer_states"][0], state["global_step"]
        group = stored["param_groups"][0]
        numbers = _entries_by_name(
            state["state_dict"], [i for g in stored["param_groups"] for i in g["params"]]
        )
        entries = {name: stored["state"][i] for name, i in numbers.items() if i in stored["state"]}
        moments = {
            key: rename_explainer({name: entry[key] for name, entry in entries.items()})
            for key in ("exp_avg", "exp_avg_sq")
        }
        updates = float(next(iter(entries.values()))["step"])
        by_position = {
            i: {"step": updates} | {key: values[name] for key, values in moments.items()}
            for i, name in enumerate(trainable)
        }
    except (KeyError, IndexError, StopIteration, TypeError) as error:
        raise UserError(
            f"{path} holds no state of an optimiser over this explainer's weights "
            f"({type(error).__name__}: {error})"
        ) from error
    return {"optimizer": {"state": by_position, "param_groups": [{"lr": group["lr"]}]}, "global_step": step}


def _entries_by_name(weights: dict[str, Tensor], indices: list[int]) -> dict[str, int]:
    """Each explainer weight's index in the optimiser, which may count both models' weights."""
    both = [key for key in weights if not re.search(r"running_(mean|var)$|num_batches_tracked$", key)]
    explainer = [key for key in both if key.startswith(_THEIR_EXPLAINER)]
    without_embeddings = [key for key in explainer if ".vit.embeddings." not in key]
    names = next(
        (names for names in (explainer, both, without_embeddings) if len(names) == len(indices)), None
    )
    if names is None:
        raise KeyError(f"{len(indices)} weights for {len(explainer)} of the explainer")
    return {
        name.removeprefix(_THEIR_EXPLAINER): index
        for name, index in zip(names, indices, strict=True)
        if name.startswith(_THEIR_EXPLAINER)
    }


def _below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _vit_name(key: str) -> str:
    for theirs, ours in _VIT_NAMES:
        key = key.replace(theirs, ours)
    return key


def _vit_explainer_name(key: str) -> str:
    for theirs, ours in _VIT_HEAD.items():
        if key.startswith(f"{theirs}."):
            return ours + key.removeprefix(theirs)
    return "backbone." + _vit_name(key)


def _cnn_name(key: str, is_densenet: bool) -> str:
    if key.startswith("bottleneck.0."):
        return "head." + key.removeprefix("bottleneck.0.")
    if is_densenet:
        return key.replace("encoder.0.", "backbone.features.", 1)
    _, child, rest = key.split(".", 2)
    return f"backbone.{_RESNET_CHILDREN.get(child, f'encoder.{child}')}.{rest}"


def _join_qkv(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join each layer's query, key and value to timm's one projection; drops the unused pooler."""
    joined = {}
    for key, value in tensors.items():
        match = _QKV.fullmatch(key)
        if match is None:
            if not key.removeprefix("backbone.").startswith("vit.pooler."):
                joined[key] = value
        elif match[2] == "query":
            parts = (tensors[f"{match[1]}.{part}.{match[3]}"] for part in ("query", "key", "value"))
            joined[f"{match[1]}.qkv.{match[3]}"] = torch.cat(list(parts))
    return joined
