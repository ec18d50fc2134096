"""Many copies of an explainer's trainable weights, one per image, finetuned side by side.

Each weight lies once, with a leading axis of slots. Transformers run all slots at once under `vmap`,
convolutions slot by slot; frozen weights are shared. AdamW is elementwise, so the slots stay independent.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.optim.adamw import adamw

from ltx.models.explainer import Explainer
from ltx.models.sharing import shared_copy

_BETAS, _EPS = (0.9, 0.999), 1e-8  # AdamW's defaults (released)


class StackedExplainer:
    """`n_slots` copies of an explainer that start from its weights; the explainer itself is not touched.

    Args:
        explainer: where each copy starts.
        n_slots: copies.
        lr: constant learning rate, without `schedule`.
        weight_decay: of AdamW.
        schedule: rate by update (0, 1, ...), for `--finetune-lr released`.
        moments: AdamW state that each copy starts from: `exp_avg` and `exp_avg_sq` by parameter name, `step`.
        use_vmap: run the slots as one batch; default where the explainer has tokens, and only there (grouped
            convolutions are slow, and vmap knows no channels-last ones).
    """

    def __init__(
        self, explainer: Explainer, n_slots: int, lr: float, weight_decay: float = 0.01,
        schedule: Callable[[int], float] | None = None, moments: dict | None = None,
        use_vmap: bool | None = None,
    ):  # fmt: skip
        trainable = explainer.trainable()
        # Each call swaps weights inside the module; other threads may be using the one that was given.
        self.explainer, self.n_slots = shared_copy(explainer), n_slots
        self.use_vmap = explainer.has_tokens if use_vmap is None else use_vmap
        self.lr, self.weight_decay, self.schedule = lr, weight_decay, schedule
        self.shared = {name: value for name, value in explainer.state_dict().items() if name not in trainable}
        self.shared |= {name: value for name, value in explainer.named_buffers() if name not in self.shared}
        self._start = {name: value.detach() for name, value in trainable.items()}
        self._moments = moments or {"exp_avg": None, "exp_avg_sq": None, "step": 0.0}
        self.weights = {name: _copies(value, n_slots) for name, value in self._start.items()}
        self._exp_avg, self._exp_avg_sq = (
            {name: torch.zeros_like(value) for name, value in self.weights.items()} for _ in range(2)
        )
        if self.use_vmap:
            self._leaves = [{name: value.requires_grad_(True) for name, value in self.weights.items()}]
        else:  # a leaf for each slot: no gradient is then gathered from the slots
            self._leaves = [
                {name: value[slot].requires_grad_(True) for name, value in self.weights.items()}
                for slot in range(n_slots)
            ]
        self.updates = [0] * n_slots
        for slot in range(n_slots):
            self.reset(slot)

    @torch.no_grad()
    def reset(self, slot: int) -> None:
        """Back to the explainer's weights and a fresh optimiser."""
        self.updates[slot] = 0
        for name, value in self._start.items():
            self.weights[name][slot].copy_(value)
            for own, key in ((self._exp_avg, "exp_avg"), (self._exp_avg_sq, "exp_avg_sq")):
                stored = self._moments[key]
                own[name][slot].zero_() if stored is None else own[name][slot].copy_(stored[name])

    def token_masks(self, images: Tensor, slots: list[int], classes: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W), one for each of the given slots, to token masks (B, 1, h, w).

        Args:
            images: in [0, 1].
            slots: whose weights make the mask of each image.
            classes: (B,) class asked about, for a class-conditional explainer.
        """
        asked = (images,) if classes is None else (images, classes)
        if self.use_vmap:
            where = self._where(slots)
            weights = self._leaves[0]
            if where is not None:
                weights = {name: value[where] for name, value in weights.items()}
            return vmap(self._one)(weights, *asked)
        return torch.stack(
            [self._one(self._leaves[slot], *one) for slot, *one in zip(slots, *asked, strict=True)]
        )

    def _one(self, own: dict[str, Tensor], *asked: Tensor) -> Tensor:
        alone = tuple(value[None] for value in asked)
        return functional_call(self.explainer, {**self.shared, **own}, alone)[0]

    def _where(self, slots: list[int]) -> slice | list[int] | None:
        """An index of the given slots, as a slice where that can be; None for all of them."""
        if slots == list(range(len(slots))):
            return None if len(slots) == self.n_slots else slice(len(slots))
        return slots

    @torch.no_grad()
    def update(self, losses: Tensor, slots: list[int]) -> None:
        """One AdamW step of the given slots on their losses (B,)."""
        with torch.enable_grad():
            losses.sum().backward()
        together = self._where(slots)
        if (
            self.use_vmap
            and len({self.updates[slot] for slot in slots}) == 1
            and not isinstance(together, list)
        ):
            self._adamw(slice(None) if together is None else together, self.updates[slots[0]])
        else:
            for slot in slots:
                self._adamw(slot, self.updates[slot])
        for slot in slots:
            self.updates[slot] += 1
        for leaves in self._leaves:
            for leaf in leaves.values():
                leaf.grad = None

    def _adamw(self, where: int | slice, update: int) -> None:
        """AdamW on one slot, or on several that are at the same update, as one tensor per weight."""
        rate = self.schedule(update) if self.schedule else self.lr
        leaves: Any = self._leaves[0 if self.use_vmap else where]
        gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        if self.use_vmap:
            gradients = {name: value[where] for name, value in gradients.items()}
        names = list(gradients)
        before = torch.full(
            (len(names),), self._moments["step"] + update, device=self._device, dtype=torch.float32
        )
        adamw(
            [self.weights[name][where].detach() for name in names],
            list(gradients.values()),
            [self._exp_avg[name][where] for name in names],
            [self._exp_avg_sq[name][where] for name in names],
            [],
            list(before.unbind()),
            fused=self._device.type in ("cpu", "cuda"),
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=rate,
            weight_decay=self.weight_decay,
            eps=_EPS,
            maximize=False,
        )

    @property
    def _device(self) -> torch.device:
        return next(iter(self.weights.values())).device


def _copies(value: Tensor, n: int) -> Tensor:
    """(n, *shape), each copy contiguous."""
    return value.contiguous().expand(n, *value.shape).clone(memory_format=torch.contiguous_format)
