"""README's Python examples run as they stand, and what they say of their results is so."""

import re
from pathlib import Path

import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]


def python_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_python_examples_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    first, second = python_blocks()
    exec(compile(first, "README.md, first example", "exec"), names)
    explanation = names["explanation"]
    assert explanation.target.shape == (1,) and explanation.variant == "pltx"
    assert explanation.token_masks.shape == (1, 7, 7) and explanation.saliency.shape == (1, 427, 640)
    for line in re.findall(r"# (probability.*)", first):
        assert set(re.split(r",\s*", line)) == set(explanation.scores)
    exec(compile(second, "README.md, second example", "exec"), names)
    explanation = names["explanation"]
    assert explanation.target.tolist() == [0, 3] and explanation.saliency.shape == (2, 240, 400)
    assert explanation.figures["loss"].shape == (2, 10)
    pixels = F.interpolate(names["images"], (96, 160), mode="bilinear", antialias=True).clamp(0, 1)
    maps = F.interpolate(explanation.token_masks[:, None], (96, 160), mode="bilinear")
    logits = names["network"]((pixels * maps - 0.5) / 0.25)
    wanted = torch.sigmoid(logits)[[0, 1], [0, 3]]
    torch.testing.assert_close(explanation.scores["masked_probability"], wanted, rtol=0, atol=1e-5)
