"""No step of LTX waits for the device."""

import pytest
import torch

from ltx.main.seg_classification.finetuning import Settings
from ltx.main.seg_classification.stacked_explainer import StackedExplainer
from ltx.models.losses import Objective


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_steps_are_queued_without_waiting(make_explainer, make_explainee, kind):
    explainer, explainee = make_explainer(kind).cuda(), make_explainee("cnn").cuda()
    images, classes = torch.rand(2, 3, 32, 32).cuda(), torch.tensor([0, 1]).cuda()
    objective, steps = Objective(), torch.zeros(2, dtype=torch.long, device="cuda")
    stack = StackedExplainer(explainer, 2, Settings(n_steps=4, lr=1e-3).lr)

    def step():
        masks = stack.token_masks(images, [0, 1], classes)
        stack.update(objective(explainee, images, masks, classes, steps)["loss"], [0, 1])

    step()  # libraries are loaded
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
