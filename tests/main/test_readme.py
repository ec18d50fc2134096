"""The Python examples of the documents run as they stand, and their comments on results hold."""

import re
from pathlib import Path

import torch
from torch.nn import functional as F

from ltx.main.api import FRESH

ROOT = Path(__file__).resolve().parents[2]


def python_block(name: str) -> str:
    """The only Python example of a document."""
    text = (ROOT / name).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return block


def test_example_with_a_trained_explainer(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    example = python_block("main/README.md")
    exec(compile(example, "main/README.md", "exec"), names)
    explanation = names["explanation"]
    assert explanation.target.shape == (1,) and explanation.variant == "pltx"
    assert explanation.token_masks.shape == (1, 7, 7) and explanation.saliency.shape == (1, 427, 640)
    (comment,) = re.findall(r"# (probability.*)", example)
    assert set(re.split(r",\s*", comment)) == set(explanation.scores)


def test_example_with_a_network_of_ones_own():
    torch.manual_seed(0)
    names: dict = {}
    example = python_block("README.md")
    exec(compile(example, "README.md", "exec"), names)
    explanation = names["explanation"]
    assert explanation.target.tolist() == [0, 3] and explanation.saliency.shape == (2, 240, 400)
    assert explanation.figures["loss"].shape == (2, FRESH.steps)
    (comment,) = re.findall(r"# (probability.*)", example)
    assert set(re.split(r",\s*", comment)) == set(explanation.scores)
    pixels = F.interpolate(names["images"], (96, 160), mode="bilinear", antialias=True).clamp(0, 1)
    maps = F.interpolate(explanation.token_masks[:, None], (96, 160), mode="bilinear")
    logits = names["network"]((pixels * maps - 0.5) / 0.25)
    wanted = torch.sigmoid(logits)[[0, 1], [0, 3]]
    torch.testing.assert_close(explanation.scores["masked_probability"], wanted, rtol=0, atol=1e-5)
