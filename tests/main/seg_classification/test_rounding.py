"""Options against rounding: the rate that falls, and finetuning with rounded kinks."""

import pytest
import torch

from ltx.config import UserError
from ltx.main.seg_classification.finetuning import Settings, decaying, finetune
from ltx.main.seg_classification.ltx_run import finetune_settings
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.kinks import RoundedReLU
from ltx.models.losses import Objective


def test_the_rate_rises_once_and_falls_to_nearly_nothing():
    rates = [decaying(2.0, 20)(update) for update in range(20)]
    assert rates[:2] == [1.0, 2.0] and rates[1:] == sorted(rates[1:], reverse=True)
    assert 0 < rates[-1] < 0.05
    assert [decaying(2.0, 1)(0), decaying(2.0, 0)(0)] == [1.0, 1.0]


def test_rounded_kinks_change_gradients_and_leave_the_models_alone(make_explainer, make_explainee):
    explainer, explainee = make_explainer("cnn", size=(64, 64)), make_explainee("cnn", size=(64, 64))
    before = {name: value.clone() for name, value in explainer.state_dict().items()}
    images = torch.rand(2, 3, 64, 64)
    classes = explainee(images).argmax(1)
    hard, rounded = (
        finetune(explainer, explainee, images, classes, classes, Objective(), settings)[0]
        for settings in (
            Settings(3, 1e-2, select=False, decay=True),
            Settings(3, 1e-2, select=False, decay=True, kink_width=0.5),
        )
    )
    assert torch.equal(hard["pltx"], rounded["pltx"]) and not torch.equal(hard["last"], rounded["last"])
    parts = [*explainer.modules(), *explainee.modules()]
    assert not any(isinstance(part, RoundedReLU) for part in parts)
    assert all(torch.equal(value, before[name]) for name, value in explainer.state_dict().items())


def test_options(make_explainer):
    explainer = make_explainer()
    chosen = finetune_settings(
        FinetuneOptions(kink_width=0.3, finetune_decay=True, finetune_lr=1e-3), explainer, None
    )
    assert (chosen.kink_width, chosen.rates(0)) == (0.3, 5e-4)
    with pytest.raises(UserError, match=r"--kink-width -1: must be at least 0"):
        finetune_settings(FinetuneOptions(kink_width=-1.0), explainer, None)
    with pytest.raises(UserError, match=r"--finetune-lr released .*--finetune-decay"):
        finetune_settings(FinetuneOptions(finetune_decay=True, finetune_lr="released"), explainer, None)
