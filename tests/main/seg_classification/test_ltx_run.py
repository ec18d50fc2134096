import pytest
import torch

from ltx.main.seg_classification.ltx_run import finetune_settings
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.models.checkpoints import save_state
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.registry import create_model, input_spec


@pytest.mark.parametrize(("lr", "peak"), [(None, 2e-3), (1e-3, 1e-3)])
def test_released_rate_goes_on_with_the_stored_optimiser_and_schedule(tmp_path, lr, peak):
    model = create_model("vit_digits")
    explainer = Explainer.for_explainee(
        "vit_digits", Explainee(model, input_spec(model), "vit_digits"), n_first_layers_to_freeze=5
    )
    optimizer = torch.optim.AdamW(explainer.trainable().values(), lr=3e-4)
    for parameter in explainer.trainable().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_state(tmp_path / "best.pt", {"optimizer": optimizer.state_dict(), "global_step": 100})
    settings = finetune_settings(
        FinetuneOptions(finetune_lr="released", lr=lr), explainer, tmp_path / "best.safetensors"
    )
    assert settings.schedule(0) == 3e-4
    assert settings.schedule(1) == pytest.approx(peak * 101 / 250_000)
    assert (
        settings.moments["step"] == 1 and settings.moments["exp_avg"].keys() == explainer.trainable().keys()
    )
