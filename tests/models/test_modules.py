"""Any kind of module: explained as it stands, and left as it was."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from ltx.config import UserError
from ltx.models.explainee import Explainee
from ltx.tests.support.classifiers import MEAN, SIZE, STD, net

IMAGES = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def explainee(module, **options) -> Explainee:
    return Explainee.from_module(module, MEAN, STD, SIZE, **options)


def wanted(module, dtype=torch.float32) -> torch.Tensor:
    with torch.no_grad():
        return module(((IMAGES - 0.5) / 0.25).to(dtype)).float()


class View(nn.Module):
    """As in countless tutorials: `view` needs the layout that it was written for."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 12, 5)
        self.classify = nn.Linear(12 * 5 * 5, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.classify(x.view(x.size(0), -1))


class ViewOfInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(3 * SIZE[0] * SIZE[1], 5)

    def forward(self, x):
        return self.classify(x.view(len(x), -1))


class Lora(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(4, layer.in_features))
        self.b = nn.Parameter(torch.randn(layer.out_features, 4))

    def forward(self, x):
        return self.layer(x) + x @ self.a.T @ self.b.T


def loaded() -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(net()), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def exported() -> nn.Module:
    shapes = ({0: torch.export.Dim("b", min=1, max=64)},)
    return torch.export.export(net(), (torch.rand(2, 3, *SIZE),), dynamic_shapes=shapes).module()


def with_lora() -> nn.Module:
    module = net()
    module[-1] = Lora(module[-1])
    return module


def with_norm(kind) -> nn.Module:
    module = net()
    kind(module[0])
    return module.eval()


KINDS = {
    "view": View,
    "view of the input": ViewOfInput,
    "scripted": lambda: torch.jit.script(net()),
    "traced": lambda: torch.jit.trace(net(), torch.rand(1, 3, *SIZE)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(net())),
    "loaded": loaded,
    "exported": exported,
    "parallel": lambda: nn.DataParallel(net()),
    "compiled": lambda: torch.compile(net(), backend="eager"),
    "lora": with_lora,
    "weight norm": lambda: with_norm(parametrizations.weight_norm),
    "spectral norm": lambda: with_norm(parametrizations.spectral_norm),
    "old weight norm": lambda: with_norm(nn.utils.weight_norm),
    "changes its input": lambda: nn.Sequential(nn.ReLU(inplace=True), net()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_module_gives_its_own_logits(kind):
    module = KINDS[kind]()
    own = getattr(module, "module", module)
    torch.testing.assert_close(explainee(module)(IMAGES), wanted(own), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_modules_compute_in_their_own_type(dtype):
    module = net().to(dtype)
    found = explainee(module)
    assert found.dtype == dtype and found(IMAGES).dtype == torch.float32
    torch.testing.assert_close(found(IMAGES), wanted(module, dtype), rtol=1e-2, atol=1e-2)


def test_modules_that_cast_their_own_input():
    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net().bfloat16()

        def forward(self, x):
            return self.net(x.to(torch.bfloat16))

    torch.testing.assert_close(
        explainee(Casts())(IMAGES), wanted(net().bfloat16(), torch.bfloat16), rtol=1e-2, atol=1e-2
    )


def test_a_batch_of_one_only():
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            assert len(x) == 1, "one image at a time"
            return self.net(x)

    torch.testing.assert_close(explainee(Alone())(IMAGES), wanted(net()), rtol=1e-4, atol=1e-5)


def test_a_function_is_a_module_too():
    module = net()
    torch.testing.assert_close(explainee(lambda x: module(x))(IMAGES), wanted(module))
    with pytest.raises(UserError, match="'int' is no module"):
        explainee(3)


def test_the_users_module_stays_as_it_was():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 5),
    ).train()  # fmt: skip
    module[0].requires_grad_(False)
    hooked = []
    module[2].register_forward_hook(lambda *_: hooked.append(1))
    before, flags = copy.deepcopy(module.state_dict()), [p.requires_grad for p in module.parameters()]
    random = torch.get_rng_state()
    found = explainee(module)
    found(IMAGES)
    assert torch.equal(torch.get_rng_state(), random)
    assert module.training and all(part.training for part in module.modules())
    assert [p.requires_grad for p in module.parameters()] == flags
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert hooked, "hooks still see what passes"
    module(IMAGES).sum().backward()
    assert module[-1].weight.grad is not None and not any(p.requires_grad for p in found.parameters())
    module.eval()
    torch.testing.assert_close(found(IMAGES), wanted(module))


def test_weights_are_shared_and_not_copied():
    module = net()
    assert explainee(module).model[0].weight.data_ptr() == module[0].weight.data_ptr()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_made_where_gradients_are_off(context):
    with context():
        found = explainee(net())
    images = IMAGES.clone().requires_grad_(True)
    found(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_layers_that_were_never_run_are_one_line():
    with pytest.raises(UserError, match="lazy layers without weights: pass one batch through it first"):
        explainee(nn.Sequential(nn.Flatten(), nn.LazyLinear(5)))


@pytest.mark.filterwarnings("ignore")
def test_quantised_modules_are_one_line():
    module = torch.ao.quantization.quantize_dynamic(net(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UserError, match=r"gradient|takes no images"):
        explainee(module)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), "divide mean and std by 255"),
        (MEAN, (0.0, 0.0, 0.0), "must be above 0"),
        ((0.5, 0.5), (0.25,) * 3, "mean has 2 values and std 3"),
    ],
)
def test_normalisations_that_make_no_sense(mean, std, message):
    with pytest.raises(UserError, match=message):
        Explainee.from_module(net(), mean, std, SIZE)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.5, 0.25), ((0.5,), (0.25,)), (torch.tensor(MEAN), torch.tensor(STD)), ([0.5] * 3, 0.25)],
)
def test_mean_and_std_in_all_forms(mean, std):
    torch.testing.assert_close(Explainee.from_module(net(), mean, std, 32)(IMAGES), wanted(net()))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_any_number_of_channels(channels):
    module = net(channels=channels)
    found = Explainee.from_module(module, 0.5, 0.25, SIZE)
    images = torch.rand(2, channels, *SIZE)
    assert found.channels == channels
    torch.testing.assert_close(found(images), module((images - 0.5) / 0.25), rtol=1e-4, atol=1e-5)


def test_one_channel_sees_rgb_in_grey():
    found = Explainee.from_module(net(channels=1), 0.5, 0.25, SIZE)
    grey = IMAGES[:, :1]
    torch.testing.assert_close(found(grey.expand(-1, 3, -1, -1)), found(grey), rtol=1e-4, atol=1e-5)
