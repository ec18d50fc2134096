"""The shipped explainee does what its record says, and its training goes on after a kill."""

import json

import pytest
import torch

from ltx import config
from ltx.main import train_digits
from ltx.main.train_digits import TrainDigitsOptions
from ltx.models.checkpoints import load_safetensors, weights_sha256
from ltx.models.explainee import Explainee

SHIPPED = config.ROOT / "checkpoints" / "vit_digits"


@pytest.fixture(scope="module")
def shipped() -> Explainee:
    return Explainee.from_name("vit_digits", SHIPPED / "explainee.safetensors")


def test_held_out_accuracy(shipped):
    """All 397 held-out digits."""
    accuracy = train_digits.held_out_accuracy(shipped, torch.device("cpu"))
    record = json.loads((SHIPPED / "explainee.json").read_text())
    assert accuracy >= 0.95
    assert accuracy == pytest.approx(record["held_out_accuracy"], abs=1.01 / 397)  # one digit at a near-tie
    assert record["held_out_digits"] == 397


@pytest.mark.parametrize("kind", ["predicted", "target"])
def test_shipped_explainers_are_of_this_explainee(shipped, kind):
    run = json.loads((SHIPPED / kind / "run.json").read_text())
    assert run["explainee"]["sha256"] == weights_sha256(shipped.model)
    metadata = load_safetensors(SHIPPED / kind / "best.safetensors")[1]
    assert metadata["class"] == kind and metadata["run_hash"] == run["hash"]


def test_training_writes_and_goes_on(tmp_path, monkeypatch):
    """Two steps at a time, killed after the first save, ends with the weights of an undisturbed training."""
    monkeypatch.setattr(train_digits, "SAVE_EVERY", 2)
    monkeypatch.setattr(train_digits, "held_out_accuracy", lambda *_: 0.5)

    def options(name):
        return TrainDigitsOptions(steps=4, batch_size=2, output=tmp_path / name, num_workers=0, device="cpu")

    folder, results = train_digits.main(options("whole"))
    assert results == {"vit_digits": {"accuracy": 50.0}}
    save = train_digits.save_state

    def dying(path, state):
        save(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_digits, "save_state", dying)
    with pytest.raises(KeyboardInterrupt):
        train_digits.main(options("killed"))
    monkeypatch.setattr(train_digits, "save_state", save)
    train_digits.main(options("killed"))
    first, second = (
        load_safetensors(tmp_path / name / "explainee.safetensors")[0] for name in ("whole", "killed")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert {value.dtype for value in first.values()} == {torch.float16}
    record = json.loads((folder / "explainee.json").read_text())
    assert record["held_out_accuracy"] == 0.5 and record["options"]["steps"] == 4
    assert sorted(path.name for path in folder.iterdir()) == ["explainee.json", "explainee.safetensors"]
