"""The device that a script computes on."""

import pytest

from ltx.config import UserError
from ltx.main.common import devices


def test_devices():
    assert devices.pick_device("cpu").type == "cpu"
    assert devices.pick_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there(name, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(UserError, match=f"--device {name}: .*--device auto"):
        devices.pick_device(name)
    assert devices.pick_device("auto").type == "cpu"
