"""Small checkpoints in the published layout, made by hand, and the small aliases that they fit."""

import torch

from ltx.config import Alias

DIM, DEPTH, HEADS, CLASSES, SIDE, PATCH = 24, 2, 2, 7, 32, 8
_OVERLAY = {"input_size": (3, SIDE, SIDE), "num_classes": CLASSES}
TINY = {
    "tiny_vit": Alias(
        "vit_tiny_patch16_224", "tiny_vit", True,
        {
            "pretrained_cfg_overlay": _OVERLAY, "img_size": SIDE, "patch_size": PATCH, "embed_dim": DIM,
            "depth": DEPTH, "num_heads": HEADS, "num_classes": CLASSES,
        },
    ),
    "tiny_resnet": Alias(
        "resnet18.tv_in1k", "tiny_resnet", True, {"pretrained_cfg_overlay": _OVERLAY, "num_classes": CLASSES}
    ),
    "tiny_densenet": Alias(
        "densenet121.tv_in1k", "tiny_densenet", True,
        {
            "pretrained_cfg_overlay": _OVERLAY, "num_classes": CLASSES, "growth_rate": 8,
            "block_config": (1, 2, 1, 2),
        },
    ),
}  # fmt: skip


def hugging_face_weights(generator: torch.Generator, with_head: bool) -> dict[str, torch.Tensor]:
    """A ViT in Hugging Face's names. The embeddings are tiny, so that LayerNorm's eps matters."""

    def draw(*shape, scale=0.3):
        return scale * torch.randn(*shape, generator=generator)

    n_tokens = (SIDE // PATCH) ** 2
    weights = {
        "vit.embeddings.cls_token": draw(1, 1, DIM, scale=1e-3),
        "vit.embeddings.position_embeddings": draw(1, n_tokens + 1, DIM, scale=1e-3),
        "vit.embeddings.patch_embeddings.projection.weight": draw(DIM, 3, PATCH, PATCH, scale=1e-4),
        "vit.embeddings.patch_embeddings.projection.bias": draw(DIM, scale=1e-3),
        "vit.layernorm.weight": 1 + draw(DIM),
        "vit.layernorm.bias": draw(DIM),
    }
    for i in range(DEPTH):
        sizes = {
            "attention.attention.query": (DIM, DIM), "attention.attention.key": (DIM, DIM),
            "attention.attention.value": (DIM, DIM), "attention.output.dense": (DIM, DIM),
            "intermediate.dense": (4 * DIM, DIM), "output.dense": (DIM, 4 * DIM),
        }  # fmt: skip
        for name, (n_out, n_in) in sizes.items():
            weights[f"vit.encoder.layer.{i}.{name}.weight"] = draw(n_out, n_in, scale=1e-4)
            weights[f"vit.encoder.layer.{i}.{name}.bias"] = draw(n_out, scale=1e-4)
        for name in ("layernorm_before", "layernorm_after"):
            weights[f"vit.encoder.layer.{i}.{name}.weight"] = 1 + draw(DIM)
            weights[f"vit.encoder.layer.{i}.{name}.bias"] = draw(DIM)
    if with_head:
        return weights | {"classifier.weight": draw(CLASSES, DIM), "classifier.bias": draw(CLASSES)}
    head = {"patch_pooler.weight": draw(DIM, DIM), "patch_pooler.bias": draw(DIM)}
    return weights | head | {"patch_classifier.weight": draw(1, DIM), "patch_classifier.bias": draw(1)}


def save(path, state_dict: dict[str, torch.Tensor], **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"epoch": 30, "global_step": 969, "pytorch-lightning_version": "1.5.10", "callbacks": {}}
    torch.save(facts | {"state_dict": state_dict} | more, path)
    return path


def vit_base_file(path):
    """ViT-Base at full size, 12 blocks with the same weights, which the file holds once."""

    def draw(*shape, scale=0.02):
        return scale * torch.randn(*shape, generator=generator)

    generator, dim = torch.Generator().manual_seed(1), 768
    block = {}
    for name, shape in {
        "attention.attention.query": (dim, dim), "attention.attention.key": (dim, dim),
        "attention.attention.value": (dim, dim), "attention.output.dense": (dim, dim),
        "intermediate.dense": (4 * dim, dim), "output.dense": (dim, 4 * dim),
    }.items():  # fmt: skip
        block |= {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}
    for name in ("layernorm_before", "layernorm_after"):
        block |= {f"{name}.weight": 1 + draw(dim), f"{name}.bias": draw(dim)}
    vit = {
        "vit.embeddings.cls_token": draw(1, 1, dim),
        "vit.embeddings.position_embeddings": draw(1, 197, dim),
        "vit.embeddings.patch_embeddings.projection.weight": draw(dim, 3, 16, 16),
        "vit.embeddings.patch_embeddings.projection.bias": draw(dim),
        "vit.layernorm.weight": 1 + draw(dim),
        "vit.layernorm.bias": draw(dim),
    } | {f"vit.encoder.layer.{i}.{key}": value for i in range(12) for key, value in block.items()}
    explainee = vit | {"classifier.weight": draw(1000, dim, scale=0.1), "classifier.bias": draw(1000)}
    explainer = vit | {"patch_pooler.weight": draw(dim, dim), "patch_pooler.bias": draw(dim)}
    explainer |= {"patch_classifier.weight": draw(1, dim, scale=0.5), "patch_classifier.bias": draw(1)}
    state = {f"vit_for_classification_image.{key}": value for key, value in explainee.items()}
    state |= {f"vit_for_patch_classification.{key}": value for key, value in explainer.items()}
    return save(path, state)


def vit_file(path):
    generator = torch.Generator().manual_seed(1)
    explainee, explainer = (hugging_face_weights(generator, with_head) for with_head in (True, False))
    state = {f"vit_for_classification_image.{key}": value for key, value in explainee.items()}
    state |= {f"vit_for_patch_classification.{key}": value for key, value in explainer.items()}
    return save(path, state), explainee, explainer
