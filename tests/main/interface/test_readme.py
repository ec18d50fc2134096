"""The examples of `main/interface/README.md` run as they stand."""

import re
from pathlib import Path

from ltx.main.baselines import methods

ROOT = Path(__file__).resolve().parents[3]


def test_examples_run(monkeypatch):
    monkeypatch.setattr(methods, "BASELINES", {})
    text = (ROOT / "main" / "interface" / "README.md").read_text(encoding="utf-8")
    names: dict = {"REPOSITORY": str(ROOT)}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        assert block.count("\n") <= 5 or "from ltx import" in block, "a tool takes five lines at most"
        exec(compile(block, "main/interface/README.md", "exec"), names)
    (comment,) = re.findall(r"# (score,.*)", text)
    assert set(re.split(r",\s*", comment)) == set(names["explanation"].scores)
    assert names["maps"].shape == (2, 1, 64, 64) and names["found"].saliency.shape == (2, 64, 64)
    assert list(methods.BASELINES) == ["constant"]
