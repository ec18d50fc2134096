"""Writes a full-size checkpoint in the published layout, and what its own libraries' networks give.

    python tests/support/full_size_reference.py PAIR FOLDER

PAIR is vit_base, vit_small (Hugging Face's transformers 4), resnet or densenet (torchvision). It imports
nothing of this project, and runs outside its folder, where `datasets` is not Hugging Face's package of that
name. Weights are random. FOLDER receives `pair.ckpt` and `reference.pt` (images, logits, masks).
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

CLASSES, SIDE = 1000, 224
WIDTHS = {"vit_base": (768, 12), "vit_small": (384, 6)}


def images(count: int) -> Tensor:
    """Smooth random colours, so that batch norms see something like pictures."""
    return nn.functional.interpolate(torch.rand(count, 3, 14, 14), (SIDE, SIDE), mode="bilinear")


@torch.no_grad()
def disturb(model: nn.Module) -> nn.Module:
    """Biases that are not 0, norms that are not 1, and batch norms with real statistics."""
    for value in model.parameters():
        if value.ndim == 1:
            value.add_(0.2 * torch.randn_like(value))
    for name, value in model.named_parameters():
        if name.endswith("bn3.weight"):  # small as in trained ResNets: else rounding errors grow
            value.mul_(0.3)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None
        model.train()((images(16) - 0.5) / 0.25)
    return model.eval()


class VitExplainer(nn.Module):
    """Tokens without the class token -> linear, tanh, linear, sigmoid."""

    def __init__(self, vit: nn.Module, width: int):
        super().__init__()
        self.vit = vit
        self.patch_pooler = nn.Linear(width, width)
        self.patch_classifier = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.vit(x).last_hidden_state[:, 1:]
        scores = self.patch_classifier(self.patch_pooler(tokens).tanh())
        return scores.sigmoid().transpose(1, 2).unflatten(2, (SIDE // 16, SIDE // 16))


class CnnExplainer(nn.Module):
    """The network's children without pooling and classifier -> 1x1 convolution, sigmoid."""

    def __init__(self, encoder: nn.Sequential, width: int):
        super().__init__()
        self.encoder = encoder
        self.bottleneck = nn.Sequential(nn.Conv2d(width, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.bottleneck(self.encoder(x))


def vit_pair(name: str) -> tuple[nn.Module, nn.Module]:
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    width, heads = WIDTHS[name]
    shape = ViTConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width, num_labels=CLASSES
    )
    explainer = disturb(VitExplainer(ViTModel(shape, add_pooling_layer=False), width))
    explainer.patch_classifier.weight.data.mul_(20)
    return disturb(ViTForImageClassification(shape)), explainer


@torch.no_grad()
def cnn_pair(name: str, shown: Tensor) -> tuple[nn.Module, nn.Module]:
    import torchvision

    make = torchvision.models.resnet101 if name == "resnet" else torchvision.models.densenet201
    explainee, backbone = disturb(make()), disturb(make())
    head = explainee.fc if name == "resnet" else explainee.classifier
    children = list(backbone.children())
    encoder = nn.Sequential(*(children[:-2] if name == "resnet" else children[:-1]))
    explainer = CnnExplainer(encoder, head.in_features).eval()
    # Heads scaled so that logits and masks are of a usual size.
    head.weight.mul_(3 / explainee(shown).std())
    score = explainer.bottleneck[0]
    score.weight.mul_(1 / score(encoder(shown)).std())
    return explainee, explainer


def main(name: str, folder: Path) -> None:
    torch.manual_seed(11)
    is_vit = name in WIDTHS
    mean, std = ((0.5,) * 3, (0.5,) * 3) if is_vit else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pictures = images(3)
    shown = (pictures - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    explainee, explainer = vit_pair(name) if is_vit else cnn_pair(name, shown)
    with torch.no_grad():
        logits, masks = explainee(shown), explainer(shown)
    logits = logits if isinstance(logits, Tensor) else logits.logits
    parts = {"vit_for_classification_image": explainee, "vit_for_patch_classification": explainer}
    state = {
        f"{role}.{key}": value for role, part in parts.items() for key, value in part.state_dict().items()
    }
    facts = {"epoch": 30, "global_step": 969, "pytorch-lightning_version": "1.5.10", "callbacks": {}}
    torch.save(facts | {"state_dict": state}, folder / "pair.ckpt")
    torch.save({"images": pictures, "logits": logits, "masks": masks}, folder / "reference.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
