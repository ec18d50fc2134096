"""The inner loops never read a value on the host: on CUDA each such reading waits for the device."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ltx.main.seg_classification.finetuning import Settings, finetune
from ltx.main.seg_classification.pretraining import Plan, Trainer
from ltx.models.losses import Objective

# Operations whose result the host has to know, by value or by shape.
WAITS = {
    "aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::nonzero_numpy", "aten::masked_select",
    "aten::is_nonzero", "aten::equal", "aten::_unique2", "aten::unique_dim", "aten::bincount",
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts operations that would wait for the device."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        by_mask = name in ("aten::index", "aten::index_put_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if name in WAITS or by_mask:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def waits_of_finetuning(explainer, explainee, n_steps, **changes):
    images, classes = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    settings = Settings(n_steps=n_steps, lr=1e-3, slots=2, **changes)
    with Waits() as waits:
        finetune(explainer, explainee, images, classes, classes, Objective(), settings)
    return waits.found


def test_the_counter_sees_a_reading():
    value = torch.rand(3)
    with Waits() as waits:
        value.sum().item(), value[value > 2], value.nonzero()
    assert sum(waits.found.values()) == 3


@pytest.mark.parametrize("kind", ["vit", "cnn"])
@pytest.mark.parametrize("changes", [{"select": False}, {"kink_width": 0.1, "select": False, "decay": True}])
def test_ltx_steps(make_explainer, make_explainee, kind, changes):
    """None at all, whatever the number of steps."""
    found = waits_of_finetuning(make_explainer(kind), make_explainee("cnn"), 4, **changes)
    assert not found


def test_scored_steps_wait_where_shortcuts_do(make_explainer, make_explainee, monkeypatch):
    """To leave images out of the scoring the host has to know which; without shortcuts nothing is read."""
    explainer, explainee = make_explainer(), make_explainee("cnn")
    assert waits_of_finetuning(explainer, explainee, 3)["aten::nonzero"] > 0
    from ltx.main.seg_classification import step_scorer

    init = step_scorer.StepScorer.__init__

    def as_on_cuda(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.leaves_out = self.shortcuts

    monkeypatch.setattr(step_scorer.StepScorer, "__init__", as_on_cuda)
    assert not waits_of_finetuning(explainer, explainee, 3, shortcuts=False)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_pretraining_step(make_explainer, make_explainee, tmp_path, monkeypatch, accumulate):
    """With the optimiser of CUDA, and the look at the loss apart, which comes every 50 steps there."""
    sizes = {"n_epochs": 1, "batch_size": 4, "schedule_images": 4, "accumulate": accumulate}
    plan = Plan(lr=1e-3, weight_decay=0.01, by_target=False, **sizes)
    explainee = make_explainee("cnn")
    trainer = Trainer(make_explainer(), explainee, Objective(), [], range(4), [], [], plan, tmp_path)
    monkeypatch.setattr(trainer, "_check_finite", lambda: None)
    trainer.optimizer = torch.optim.AdamW(trainer.explainer.trainable().values(), fused=True)
    data = {"image": torch.rand(4, 3, 32, 32), "label": torch.arange(4), "index": torch.arange(4)}
    trainer._train_step(data, 4, True)  # what is made once is there
    with Waits() as waits:
        trainer._train_step(data, 4, True)
    assert not waits.found
