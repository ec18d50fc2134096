"""Fixtures for every test: tiny random models, small image folders, private places, scripts run in process.

Models are real ones of timm with a few thousand weights, drawn with a seed. The factories are functions:

    def test_something(make_explainee, make_explainer, digits_weights, run_script): ...
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).resolve().parents[1]
run_path(str(ROOT / "__init__.py"))

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import set_fused_attn
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ltx import config
from ltx.config import Alias
from ltx.main.common import cli, figures
from ltx.models.checkpoints import save_safetensors
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import save_explainer
from ltx.models.registry import InputSpec, create_model, input_spec

SHARD_VARIABLES = (
    "WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_MIN", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID",
    "SLURM_NNODES",
)  # fmt: skip
MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.25, 0.2)


@pytest.fixture(scope="session", autouse=True)
def _fast_on_cpu():
    """Tiny models are slower on several threads, and with fused attention (see `models.registry`)."""
    torch.set_num_threads(1)
    set_fused_attn(False)


@pytest.fixture(autouse=True)
def _same_start(monkeypatch):
    """Every test starts from the same random state, and outside any cluster."""
    torch.manual_seed(0)
    for name in SHARD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """Default places of checkpoints, results and data below a temporary folder, which is returned."""
    monkeypatch.setattr(config, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(config, "DATA", tmp_path / "data")
    monkeypatch.setattr(config, "RESULTS", tmp_path / "data" / "results")
    monkeypatch.setattr(config, "IMAGENET_VAL", tmp_path / "data" / "imagenet" / "val")
    return tmp_path


@pytest.fixture
def drawing() -> None:
    """Sheets and curves are drawn in this test."""


@pytest.fixture(autouse=True)
def no_drawing(request, monkeypatch) -> None:
    """Sheets and curves are written empty, without `drawing`: they would take most of a test's time."""
    if "drawing" in request.fixturenames:
        return

    def save(figure, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    monkeypatch.setattr(figures, "_save", save)


def tiny_backbone(
    kind: str = "vit", size: tuple[int, int] = (32, 32), num_classes: int = 5, seed: int = 0
) -> nn.Module:
    """A random classifier whose top class depends on the image: `vit` (patches of 8) or `cnn` (a ResNet)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "vit":
            model = VisionTransformer(
                size, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=num_classes
            )
            for name, value in model.named_parameters():
                if value.dim() > 1:
                    nn.init.normal_(value, std=1.5 if name.startswith("head") else 0.2)
        else:
            model = ResNet(
                BasicBlock, (1, 1, 1, 1), num_classes=num_classes, stem_width=8, channels=(8, 8, 16, 16)
            )
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.running_mean, -0.2, 0.2)
                    nn.init.uniform_(module.running_var, 0.5, 1.5)
                    nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(model.fc.weight, std=1.0)
    return model.eval()


@pytest.fixture
def make_backbone() -> Callable[..., nn.Module]:
    """The function `tiny_backbone`."""
    return tiny_backbone


@pytest.fixture
def make_explainee() -> Callable[..., Explainee]:
    """`make_explainee(kind="vit", size=(32, 32), num_classes=5, seed=0)`: a random `Explainee`."""

    def make(kind="vit", size=(32, 32), num_classes=5, seed=0):
        return Explainee(
            tiny_backbone(kind, size, num_classes, seed), InputSpec(size, MEAN, STD), f"tiny_{kind}"
        )

    return make


@pytest.fixture
def make_explainer() -> Callable[..., Explainer]:
    """`make_explainer(kind="vit", size=(32, 32), seed=1, **arguments of Explainer)`: a random `Explainer`."""

    def make(kind="vit", size=(32, 32), seed=1, **arguments):
        backbone = tiny_backbone(kind, size, 5, seed)
        torch.manual_seed(seed)
        return Explainer(backbone, InputSpec(size, MEAN, STD), f"tiny_{kind}", **arguments)

    return make


class LinearExplainee(nn.Module):
    """Logits that are linear in the pixels: `images.flatten(1) @ weight.T + bias`; metrics by hand.

    Args:
        weight: (classes, 3, H, W), or (classes, H, W) to weigh the mean of the three channels.
        bias: (classes,), default 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        if weight.dim() == 3:
            weight = weight[:, None].expand(-1, 3, -1, -1) / 3
        self.num_classes, self.input_size = len(weight), tuple(weight.shape[-2:])
        self.register_buffer("weight", weight.flatten(1).clone())
        self.register_buffer("bias", torch.zeros(len(weight)) if bias is None else bias)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T.to(images.dtype) + self.bias.to(images.dtype)


@pytest.fixture
def linear_explainee() -> type[LinearExplainee]:
    """The class `LinearExplainee`."""
    return LinearExplainee


@pytest.fixture
def write_images(tmp_path) -> Callable[..., Path]:
    """`write_images(names, folder=None, size=(40, 50), seed=0)`: writes pictures, returns the folder."""

    def write(names, folder=None, size=(40, 50), seed=0):
        folder = tmp_path / "images" if folder is None else Path(folder)
        rng = np.random.default_rng(seed)
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(path)
        return folder

    return write


@dataclass(frozen=True)
class PairWeights:
    """Random weights of a pair of one alias, on disk.

    Attributes:
        name: the alias.
        explainee: weights file.
        explainer: folder like that of a training run, with `best.safetensors`.
    """

    name: str
    explainee: Path
    explainer: Path

    @property
    def flags(self) -> list[str]:
        """Flags that name the pair and its weights, digits as images, the CPU, and no worker processes."""
        return [
            "--explainee-model-name", self.name, "--explainee-checkpoint", str(self.explainee),
            "--explainer-checkpoint", str(self.explainer), "--images-path", "digits",
            "--device", "cpu", "--num-workers", "0",
        ]  # fmt: skip


def _random_pair(name: str, folder: Path) -> PairWeights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = create_model(name)
        for key, value in model.named_parameters():
            if value.dim() > 1:
                nn.init.normal_(value, std=1.0 if key.startswith("head") else 0.1)
        save_safetensors(folder / "explainee.safetensors", model.state_dict(), {"name": name})
        explainee = Explainee(model, input_spec(model), name)
        explainer = Explainer.for_explainee(name, explainee)
        save_explainer(folder / "predicted" / "best.safetensors", explainer, name, {})
    return PairWeights(name, folder / "explainee.safetensors", folder / "predicted")


@pytest.fixture(scope="session")
def digits_weights(tmp_path_factory) -> PairWeights:
    """Random weights for `vit_digits` and an explainer of it: a real pair, but for what it has learned."""
    return _random_pair("vit_digits", tmp_path_factory.mktemp("digits_pair"))


TINY = Alias(
    "vit_tiny_patch16_224", "tiny",
    create={
        "pretrained_cfg_overlay": {"input_size": (3, 32, 32), "num_classes": 10}, "num_classes": 10,
        "img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2,
    },
)  # fmt: skip


@pytest.fixture(scope="session")
def _tiny_weights(tmp_path_factory) -> PairWeights:
    config.ALIASES["tiny"] = TINY
    try:
        return _random_pair("tiny", tmp_path_factory.mktemp("tiny_pair"))
    finally:
        del config.ALIASES["tiny"]


@pytest.fixture
def tiny_pair(_tiny_weights, monkeypatch) -> PairWeights:
    """A further alias, `tiny` (a ViT for digits at 32x32, 4x4 tokens), with random weights.

    Scripts run with it in this process in a fraction of a second.
    """
    monkeypatch.setitem(config.ALIASES, "tiny", TINY)
    return _tiny_weights


@dataclass(frozen=True)
class ScriptResult:
    """What a script left behind: exit code, standard output and error."""

    code: int
    out: str
    err: str

    @property
    def closing(self) -> dict:
        """The closing line of JSON."""
        return json.loads(self.out.rstrip("\n").splitlines()[-1])

    @property
    def error(self) -> str:
        """The one line of a user's mistake; fails where there is more, or a traceback."""
        assert self.code == 2, f"exit code {self.code}: {self.err}"
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and self.err.rstrip().endswith(lines[0]), self.err
        return lines[0]


@pytest.fixture
def run_script(capsys) -> Callable[..., ScriptResult]:
    """`run_script(module, *argv)`: runs a script's `main` in this process as its command line would.

    The module is that of a script (`from main.seg_classification import run_seg_cls`); its `main` takes one
    dataclass of `config`.
    """

    def run(module, *argv):
        options_class = module.main.__annotations__["options"]
        capsys.readouterr()
        code = 0
        try:
            cli.run_script(options_class, module.main, [str(part) for part in argv])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return ScriptResult(code, captured.out, captured.err)

    return run


@pytest.fixture
def start_process() -> Iterator[Callable[..., subprocess.Popen]]:
    """`start_process(script, *argv, cwd=None, env=None)`: starts a script in a process of its own.

    Takes seconds (Python imports torch), so it is for what `run_script` cannot show. One thread, no
    PYTHONPATH unless `env` has it. What still runs at the end of the test is killed.
    """
    started = []

    def start(script, *argv, cwd=None, env=None):
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        kept |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} | (env or {})
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, argv)], cwd=cwd or ROOT, env=kept, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run_process(start_process) -> Callable[..., ScriptResult]:
    """`run_process(script, *argv, cwd=None, env=None, timeout=120)`: the same, to its end."""

    def run(script, *argv, cwd=None, env=None, timeout=120):
        process = start_process(script, *argv, cwd=cwd, env=env)
        out, err = process.communicate(timeout=timeout)
        return ScriptResult(process.returncode, out, err)

    return run


@pytest.fixture
def start_run(tmp_path) -> Iterator[Callable]:
    """`start_run(script, argv, patch=None, env=None)`: starts a script of `support.processes` as a process.

    It is forked from one that has imported everything, so it works at once.
    """
    from ltx.tests.support.processes import Run

    started = []

    def start(script, argv, patch=None, env=None):
        started.append(Run(tmp_path, script, argv, patch, env))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()
        run.process.join()
