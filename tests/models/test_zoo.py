"""Every row of the model zoo: as explainee, as explainer, and LTX side by side, with random weights."""

import re
from pathlib import Path

import pytest
import torch

from ltx import config
from ltx.config import Alias, UserError
from ltx.main.api import explain
from ltx.models.checkpoints import save_safetensors
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.registry import create_model

README = (Path(__file__).parents[2] / "models" / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<family>[^|]+) \| `(?P<name>\w+)` \| (?P<grid>\d+ x \d+|none) \|", re.MULTILINE)
# Fewer blocks and channels: the tokens' grid is the full model's, the tests take seconds.
SMALLER = {
    "vit_tiny_patch16_224": {"depth": 2},
    "deit_tiny_distilled_patch16_224": {"depth": 2},
    "vit_little_patch16_reg4_gap_256": {"depth": 2, "embed_dim": 60, "num_heads": 3},
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (1, 1, 1, 1)},
    "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)},
    "resnet50": {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)},
    "densenet121": {"block_config": (1, 1, 1, 1), "growth_rate": 8},
    "levit_128s": {"depth": (1, 1, 1)},
    "pit_ti_224": {"depth": (1, 1, 1)},
}


def rows() -> list:
    section = re.search(r"^## Model zoo$(.*?)^#", README, re.MULTILINE | re.DOTALL)[1]
    return [pytest.param(row["name"], row["grid"], id=row["name"]) for row in ROW.finditer(section)]


@pytest.fixture
def small(monkeypatch):
    """Lets a timm name stand for its smaller self."""

    def shrink(name: str) -> str:
        if name in SMALLER:
            monkeypatch.setitem(config.ALIASES, name, Alias(name, name, create=SMALLER[name]))
        torch.manual_seed(0)
        return name

    return shrink


@pytest.fixture
def explainee_of(small, tmp_path):
    """The explainee of a row, from a file as `--explainee-checkpoint` would read it."""

    def make(name: str) -> Explainee:
        save_safetensors(tmp_path / "w.safetensors", create_model(small(name)).state_dict(), {})
        return Explainee.from_name(name, tmp_path / "w.safetensors")

    return make


def test_the_page_lists_what_people_use():
    names = {row.values[0] for row in rows()}
    assert set(SMALLER) <= names and len(names) >= 12


@pytest.mark.parametrize(("name", "grid"), rows())
def test_row_as_explainee(name, grid, explainee_of):
    explainee = explainee_of(name)
    images = torch.rand(2, 3, *explainee.input_size, requires_grad=True)
    logits = explainee(images)
    assert logits.shape == (2, 1000) and logits.isfinite().all()
    logits[:, 7].sum().backward()
    assert images.grad.isfinite().all() and images.grad.abs().max() > 0
    assert all(weight.grad is None for weight in explainee.parameters())


@pytest.mark.parametrize(("name", "grid"), rows())
def test_row_as_explainer_and_side_by_side(name, grid, small, explainee_of):
    if grid == "none":
        with pytest.raises(UserError, match=f"'{name}' gives .* fit no grid; choose another explainer"):
            Explainer.untrained(small(name))
        return
    explainee, explainer = explainee_of(name), Explainer.untrained(name)
    images = torch.rand(2, 3, *explainee.input_size)
    assert f"{explainer.grid[0]} x {explainer.grid[1]}" == grid
    masks = explainer(images)
    assert masks.shape == (2, 1, *explainer.grid)
    masks.sum().backward()
    for key, weight in explainer.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, key
    together = explain(explainer, explainee, images, steps=2, lr=1e-3)
    alone = explain(explainer, explainee, images[1:], together.target[1:], steps=2, lr=1e-3)
    torch.testing.assert_close(together.token_masks[1:], alone.token_masks, rtol=0, atol=1e-5)
    assert (together.variants["last"] - together.variants["pltx"]).abs().max() > 1e-3


def test_a_backbone_without_a_classifier_only_explains(tmp_path, monkeypatch):
    name = "vit_small_patch14_reg4_dinov2"
    smaller = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    monkeypatch.setitem(config.ALIASES, name, Alias(name, name, create=smaller))
    save_safetensors(tmp_path / "w.safetensors", create_model(name).state_dict(), {})
    with pytest.raises(UserError, match=f"'{name}' has no classifier"):
        Explainee.from_name(name, tmp_path / "w.safetensors")
    assert Explainer.untrained(name).grid == (37, 37)
