"""Many copies of an explainer's trainable weights, one per image, finetuned side by side.

The copies lie in one matrix (slots, parameters). Transformers run all slots at once under `torch.func.vmap`;
frozen weights are shared. AdamW sees each slot as a parameter of its own, so the slots stay independent.
"""

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from models.explainer import Explainer


class StackedExplainer:
    """`n_slots` copies of an explainer that start from its weights.

    Args:
        explainer: where each copy starts.
        n_slots: copies.
        lr: constant learning rate, or None with `schedule`.
        weight_decay: of AdamW.
        schedule: rate by update (0, 1, ...), for `--finetune-lr released`.
        moments: AdamW state that each copy starts from: `exp_avg` and `exp_avg_sq` by parameter name, `step`.
        use_vmap: run the slots as one batch; default where the explainer has tokens, and only there (grouped
            convolutions are slow, and vmap knows no channels-last ones).
    """

    def __init__(
        self, explainer: Explainer, n_slots: int, lr: float, weight_decay: float = 0.01,
        schedule=None, moments: dict | None = None, use_vmap: bool | None = None,
    ):  # fmt: skip
        trainable = explainer.trainable()
        self.explainer = explainer
        self.use_vmap = explainer.has_tokens if use_vmap is None else use_vmap
        self.shapes = {name: value.shape for name, value in trainable.items()}
        self.sizes = [value.numel() for value in trainable.values()]
        self.start = self._flat({name: value.detach() for name, value in trainable.items()})
        self.shared = {name: value for name, value in explainer.state_dict().items() if name not in trainable}
        self.shared |= {name: value for name, value in explainer.named_buffers() if name not in self.shared}
        self.weights = self.start.repeat(n_slots, 1).requires_grad_(True)
        self.schedule, self.updates = schedule, [0] * n_slots
        self._rows = list(self.weights.detach().unbind(0))
        groups = [{"params": [row]} for row in self._rows] if schedule else [{"params": self._rows}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=lr, weight_decay=weight_decay, fused=_can_fuse(self.weights)
        )
        self._moments = moments and {
            "exp_avg": self._flat(moments["exp_avg"]),
            "exp_avg_sq": self._flat(moments["exp_avg_sq"]),
            "step": torch.tensor(float(moments["step"])),
        }
        for slot in range(n_slots):
            self.reset(slot)

    def reset(self, slot: int) -> None:
        """Back to the explainer's weights and a fresh optimiser."""
        row = self._rows[slot]
        row.copy_(self.start)
        self.updates[slot] = 0
        self.optimizer.state.pop(row, None)
        if self._moments:
            self.optimizer.state[row] = {
                key: value.clone().to(row.device) for key, value in self._moments.items()
            }

    def token_masks(self, images: Tensor, slots: list[int], classes: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W), one for each of the given slots, to token masks (B, 1, h, w).

        Args:
            images: in [0, 1].
            slots: whose weights make the mask of each image.
            classes: (B,) class asked about, for a class-conditional explainer.
        """
        asked = (images,) if classes is None else (images, classes)
        everything = slots == list(range(len(self._rows)))
        weights = self.weights if everything else self.weights[slots]
        if self.use_vmap:
            return vmap(self._one)(self._named(weights), *asked)
        # unbind: its backward is one stack, where indexing would fill a zero matrix for each slot.
        rows = weights.unbind(0)
        return torch.stack(
            [self._one(self._named(row), *one) for row, *one in zip(rows, *asked, strict=True)]
        )

    def _one(self, own: dict[str, Tensor], *asked: Tensor) -> Tensor:
        alone = tuple(value[None] for value in asked)
        return functional_call(self.explainer, {**self.shared, **own}, alone)[0]

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        """Flat weights (..., P) as the explainer's parameters (..., *shape)."""
        pieces = weights.split(self.sizes, dim=-1)
        return {
            name: piece.unflatten(-1, shape) if len(shape) else piece[..., 0]
            for piece, (name, shape) in zip(pieces, self.shapes.items(), strict=True)
        }

    def update(self, losses: Tensor, slots: list[int]) -> None:
        """One AdamW step of the given slots on their losses (B,)."""
        losses.sum().backward()
        for slot in slots:
            self._rows[slot].grad = self.weights.grad[slot]
            if self.schedule:
                self.optimizer.param_groups[slot]["lr"] = self.schedule(self.updates[slot])
            self.updates[slot] += 1
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.weights.grad = None

    def _flat(self, named: dict[str, Tensor]) -> Tensor:
        return torch.cat([named[name].reshape(-1) for name in self.shapes])


def _can_fuse(weights: Tensor) -> bool:
    return weights.device.type in ("cpu", "cuda")
