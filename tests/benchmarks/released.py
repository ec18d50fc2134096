"""The released LTX procedure, written plainly: one image at a time, nothing shared, nothing skipped.

Per step: the explainee on the unmasked image, the explainer, the masked pass, backward, an AdamW step, then
ten single-image passes for POS. It stands here so that every ratio is measured against it in the same
process.
"""

import copy
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

N_REMOVALS = 10


def pos_auc(explainee, image: Tensor, saliency: Tensor, target: int) -> float:
    """POS of one image (1, 3, H, W), one pass per removal."""
    order = torch.sort(-saliency.flatten(), stable=True).indices
    correct = []
    for k in range(N_REMOVALS):
        perturbed = image.clone().flatten(2)
        perturbed[:, :, order[: k * len(order) // 10]] = 0
        with torch.no_grad():
            correct.append(float(explainee(perturbed.view_as(image)).argmax() == target))
    return 100 * sum(0.1 * (a + b) / 2 for a, b in pairwise(correct))


def finetune_one(
    explainer, explainee, image: Tensor, n_steps: int = 25, lr: float = 5e-5, mask_weight: float = 50.0,
    score: bool = True,
) -> dict[str, Tensor]:  # fmt: skip
    """LTX of one image (1, 3, H, W): the masks `pltx`, `last`, `best_loss`, `best_pos`, and `pos` by step."""
    own = copy.deepcopy(explainer)
    optimizer = torch.optim.AdamW([p for p in own.parameters() if p.requires_grad], lr=lr, weight_decay=0.01)
    kept, losses, scores = {}, [], []
    for _ in range(n_steps):
        with torch.no_grad():
            target = explainee(image).argmax(1)
        mask = own(image)
        saliency = F.interpolate(mask, image.shape[-2:], mode="bilinear", align_corners=False)
        prediction = F.cross_entropy(explainee(image * saliency), target)
        loss = prediction + mask_weight * F.binary_cross_entropy_with_logits(mask, torch.zeros_like(mask))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mask = mask.detach()[0, 0]
        kept.setdefault("pltx", mask)
        kept["last"] = mask
        if not losses or loss.item() < min(losses):
            kept["best_loss"] = mask
        losses.append(loss.item())
        if score:
            pos = pos_auc(explainee, image, saliency.detach(), target.item())
            if not scores or pos < min(scores):
                kept["best_pos"] = mask
            scores.append(pos)
    return kept | {"pos": torch.tensor(scores)}
