import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ltx.main.baselines.base import Batch
from ltx.main.baselines.cams import ablation_cam, grad_cam, grad_cam_plus_plus, layer_cam
from ltx.main.baselines.layers import CamModel
from ltx.models.masking import min_max

KINDS = (
    "vit", "wide", "deit", "registers", "pooled", "resnet", "mobilenet", "convnext", "swin"
)  # fmt: skip

pytorch_grad_cam = pytest.importorskip(
    "pytorch_grad_cam", reason="the optional package grad-cam is not installed"
)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_model_is_the_explainee(make_tiny, make_batch, kind):
    explainee = make_tiny(kind)
    batch = make_batch(explainee)
    # another memory layout, so not to the last bit
    torch.testing.assert_close(
        CamModel(explainee)(batch.images), explainee(batch.images), rtol=1e-5, atol=1e-5
    )


def reference(explainee, image, label):
    """Values and gradients (C, h, w) of the layer, by the model's own functions only."""
    model, normalised = explainee.model, (image[None] - explainee.mean) / explainee.std
    if not hasattr(model, "num_prefix_tokens"):
        values = model.forward_features(normalised).detach().requires_grad_(True)
        gradient = torch.autograd.grad(model.forward_head(values)[0, label], values)[0]
        if getattr(model, "output_fmt", "NCHW") == "NHWC":
            return values[0].detach().permute(2, 0, 1), gradient[0].permute(2, 0, 1)
        return values[0].detach(), gradient[0]
    kept = []
    handle = model.blocks[-1].norm1.register_forward_hook(lambda m, a, out: kept.append(out))
    logits = explainee(image[None].clone().requires_grad_(True))
    handle.remove()
    gradient = torch.autograd.grad(logits[0, label], kept[0])[0]
    h, w = (side // 8 for side in explainee.input_size)
    maps = [part[0, -h * w :].T.reshape(-1, h, w).detach() for part in (kept[0], gradient)]
    return maps[0], maps[1]


@pytest.mark.parametrize("kind", KINDS)
def test_grad_cam_and_layer_cam_against_their_formulas(make_tiny, make_batch, options, kind):
    explainee = make_tiny(kind)
    batch = make_batch(explainee)
    found = {
        method: method(explainee, batch, options) for method in (grad_cam, layer_cam, grad_cam_plus_plus)
    }
    for i in range(2):
        values, gradient = reference(explainee, batch.images[i], batch.classes[i])
        formulas = {
            grad_cam: (gradient.mean((1, 2), keepdim=True) * values).sum(0).clamp(min=0),
            layer_cam: (gradient.clamp(min=0) * values).sum(0).clamp(min=0),
        }
        for method, small in formulas.items():
            size = explainee.input_size
            expected = F.interpolate(small[None, None], size, mode="bilinear", align_corners=False)[0]
            torch.testing.assert_close(
                min_max(found[method][i][None]), min_max(expected), rtol=1e-3, atol=1e-3
            )
        assert found[grad_cam_plus_plus][i].shape == size
        assert found[grad_cam_plus_plus][i].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_ablation_cam_against_one_channel_at_a_time(make_tiny, make_batch, options, kind):
    """Whole forward passes with one channel of the layer set to 0."""
    explainee = make_tiny(kind)
    batch = make_batch(explainee, 1)
    model, label = CamModel(explainee), batch.classes[0]
    axis = 1 if not model.has_tokens and not model.channels_last else -1
    whole = explainee(batch.images)[0, label]
    values, _ = reference(explainee, batch.images[0], label)
    weights = []
    for channel in range(len(values)):

        def off(module, inputs, output, channel=channel):
            output = output.clone()
            output.select(axis, channel).zero_()
            return output

        handle = model.layer.register_forward_hook(off)
        with torch.no_grad():
            weights.append((whole - model(batch.images)[0, label]) / whole)
        handle.remove()
    small = (torch.stack(weights)[:, None, None] * values).sum(0).clamp(min=0)
    expected = F.interpolate(small[None, None], explainee.input_size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ablation_cam(explainee, batch, options), expected[0], rtol=1e-3, atol=1e-4)


def test_ablation_cam_against_the_library_where_it_sets_channels_to_zero(make_tiny, make_batch, options):
    """After a ReLU, pytorch-grad-cam's ablated value is 0 too."""
    explainee = make_tiny("resnet")
    batch = make_batch(explainee)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.layer = nn.Identity(), nn.Identity()

        def forward(self, images):
            normalised = (images - explainee.mean) / explainee.std
            return explainee.model.forward_head(self.layer(explainee.model.forward_features(normalised)))

    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = Whole()
    model.weight = nn.Parameter(torch.zeros(1))
    cam = pytorch_grad_cam.AblationCAM(model, [model.layer])
    theirs = cam(batch.images, [ClassifierOutputTarget(c) for c in batch.classes.tolist()])
    ours = min_max(ablation_cam(explainee, batch, options))
    torch.testing.assert_close(ours, min_max(torch.from_numpy(theirs)), rtol=1e-3, atol=1e-3)


def test_batches_do_not_mix(make_tiny, make_batch, options):
    explainee = make_tiny("vit")
    batch = make_batch(explainee, 3)
    for method in (grad_cam, grad_cam_plus_plus, layer_cam, ablation_cam):
        together = method(explainee, batch, options)
        alone = method(explainee, Batch(batch.images[2:], batch.classes[2:], batch.names[2:]), options)
        torch.testing.assert_close(together[2], alone[0], rtol=1e-4, atol=1e-5)
