"""All four published pairs at full size, against Hugging Face's and torchvision's networks.

Skipped without `LTX_TRANSFORMERS=FOLDER`, a folder that `pip install --target FOLDER 'transformers<5'` filled
(a place of its own, for transformers is no requirement of this project). `pytest -s` prints the differences.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ltx.config import ALIASES
from ltx.models.explainee import Explainee
from ltx.models.explainer_files import read_explainer

FOLDER = os.environ.get("LTX_TRANSFORMERS")
SCRIPT = Path(__file__).parents[1] / "support" / "full_size_reference.py"


@pytest.mark.skipif(not FOLDER, reason="needs LTX_TRANSFORMERS=FOLDER, see the top of this file")
@pytest.mark.parametrize("name", [name for name, alias in ALIASES.items() if alias.published])
def test_full_size_pair_gives_its_own_librarys_outputs(name, tmp_path):
    kind = name.removesuffix("_224")
    environment = os.environ | {"PYTHONPATH": FOLDER}
    command = [sys.executable, str(SCRIPT), kind, str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    reference = torch.load(tmp_path / "reference.pt", weights_only=True)
    explainee, explainer = (
        Explainee.from_name(name, tmp_path / "pair.ckpt"),
        read_explainer(tmp_path / "pair.ckpt"),
    )
    assert explainer.name == name  # recognised by its tensors alone
    with torch.no_grad():
        logits, masks = explainee(reference["images"]), explainer(reference["images"])
    assert reference["logits"].std() > 0.3 and reference["masks"].std() > 0.03
    differences = (logits - reference["logits"]).abs().max(), (masks - reference["masks"]).abs().max()
    print(f"\n{name}: logits differ by {differences[0]:.1e}, masks by {differences[1]:.1e}")
    assert max(differences) < 1e-4
