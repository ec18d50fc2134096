"""LTX as captum, pytorch-grad-cam and Quantus call it."""

import importlib.util

import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.main.api import Explainee, LTXAttribution, explain, quantus_explain
from ltx.tests.support.classifiers import MEAN, SIZE, STD, net

PIXELS = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(5))
INPUTS = (PIXELS - 0.5) / 0.25


@pytest.fixture
def ltx(make_explainer) -> LTXAttribution:
    explainee = Explainee.from_module(net(), MEAN, STD, SIZE)
    return LTXAttribution(explainee, make_explainer(), steps=3, lr=1e-2)


def test_normalised_inputs_give_the_maps_of_the_pixels(ltx):
    wanted = explain(ltx.explainer, ltx.explainee, PIXELS, [1, 2], 3, 1e-2).saliency
    found = ltx.attribute(INPUTS, target=torch.tensor([1, 2]))
    assert found.shape == INPUTS.shape
    torch.testing.assert_close(found, wanted[:, None].expand_as(INPUTS), rtol=0, atol=1e-4)
    one = ltx.attribute(INPUTS, target=[1, 2], per_channel=False)
    torch.testing.assert_close(one, wanted[:, None], rtol=0, atol=1e-4)
    assert isinstance(ltx.attribute((INPUTS,), target=1), tuple)


def test_what_captum_may_pass_and_ltx_cannot_use(ltx):
    with pytest.raises(UserError, match="one tensor of images, not 2"):
        ltx.attribute((INPUTS, INPUTS))
    with pytest.raises(UserError, match="takes images alone"):
        ltx.attribute(INPUTS, additional_forward_args=(1,))


def test_captums_metrics(ltx):
    metrics = pytest.importorskip("captum.metrics")

    def perturb(inputs):
        noise = 0.1 * torch.randn_like(inputs)
        return noise, inputs - noise

    maps = ltx.attribute(INPUTS, target=1)
    score = metrics.infidelity(ltx.explainee.model, perturb, INPUTS, maps, target=1, n_perturb_samples=2)
    assert score.shape == (2,) and score.isfinite().all()
    change = metrics.sensitivity_max(ltx.attribute, INPUTS, target=1, n_perturb_samples=2)
    assert change.shape == (2,) and change.isfinite().all()


def test_captums_pictures(ltx):
    pytest.importorskip("captum")
    import matplotlib

    matplotlib.use("Agg")
    from captum.attr import visualization

    maps = ltx.attribute(INPUTS, target=1)[0].permute(1, 2, 0).numpy()
    image = PIXELS[0].permute(1, 2, 0).numpy()
    figure, _ = visualization.visualize_image_attr(maps, image, method="blended_heat_map", use_pyplot=False)
    assert figure.axes


def test_called_as_the_methods_of_grad_cam_are(ltx):
    class Target:  # as pytorch-grad-cam's ClassifierOutputTarget
        def __init__(self, category):
            self.category = category

        def __call__(self, output):
            return output[..., self.category]

    found = ltx(input_tensor=INPUTS, targets=[Target(1), Target(2)])
    wanted = ltx.attribute(INPUTS, target=[1, 2], per_channel=False)[:, 0].numpy()
    assert found.shape == (2, *SIZE) and isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, wanted)
    top = ltx.explainee(PIXELS).argmax(1)
    np.testing.assert_array_equal(ltx(INPUTS), ltx(INPUTS, targets=top))
    functions = ltx(INPUTS, targets=[lambda row: row[1], lambda row: row[2] - row[0]])
    assert functions.shape == (2, *SIZE)
    with pytest.raises(UserError, match="aug_smooth"):
        ltx(INPUTS, aug_smooth=True)


def test_quantus_explain_follows_the_model_it_is_given(make_explainer):
    options = {
        "mean": MEAN,
        "std": STD,
        "explainer": make_explainer(),
        "steps": 3,
        "lr": 1e-2,
        "device": "cpu",
    }
    found = quantus_explain(net(), INPUTS.numpy(), np.array([1, 2]), **options)
    explainee = Explainee.from_module(net(), MEAN, STD, SIZE)
    wanted = explain(options["explainer"], explainee, PIXELS, [1, 2], 3, 1e-2).saliency[:, None].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    other = quantus_explain(net(seed=9), INPUTS.numpy(), np.array([1, 2]), **options)
    assert np.abs(found - other).max() > 1e-3
    with pytest.raises(UserError, match="pass mean and std in explain_func_kwargs"):
        quantus_explain(net(), INPUTS.numpy(), np.array([1, 2]))


@pytest.mark.skipif(importlib.util.find_spec("quantus") is None, reason="needs the package quantus")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["PixelFlipping", "FaithfulnessCorrelation", "MaxSensitivity", "MPRT"])
def test_quantus_metrics(name, make_explainer):
    import quantus

    arguments = {
        "PixelFlipping": {"features_in_step": 256, "perturb_baseline": "black"},
        "FaithfulnessCorrelation": {"nr_runs": 3, "subset_size": 64},
        "MaxSensitivity": {"nr_samples": 2},
        "MPRT": {},
    }[name]
    metric = getattr(quantus, name)(**arguments, disable_warnings=True, display_progressbar=False)
    options = {"mean": MEAN, "std": STD, "explainer": make_explainer(), "steps": 2}
    scores = metric(
        model=net(), x_batch=INPUTS.numpy(), y_batch=np.array([1, 2]), a_batch=None, device="cpu",
        explain_func=quantus_explain, explain_func_kwargs=options,
    )  # fmt: skip
    flat = np.concatenate(
        [
            np.ravel(np.asarray(v, dtype=float))
            for v in (scores.values() if isinstance(scores, dict) else scores)
        ]
    )
    assert len(flat) and np.isfinite(flat).all()
