"""The benchmark `cuda_device.py` with a tiny model on the CPU."""

import json
import sys

import pytest
import torch

from ltx.tests.benchmarks import cuda_device
from ltx.tests.benchmarks.cuda_device import PLAIN, Cell, table


def test_smoke(tiny_pair, monkeypatch, capsys):
    sizes = ["--models", "tiny", "--batches", "2", "--minutes", "0"]
    monkeypatch.setattr(sys, "argv", ["cuda_device.py", "--smoke", *sizes])
    cuda_device.main()
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])["results"]
    assert found["device"] == "CPU"
    methods = found["tiny"]
    assert {PLAIN, "LTX released", "LTX ordered", "pLTX", "evaluator", "RISE"} <= methods.keys()
    for name, cells in methods.items():
        assert list(cells) == ["2"], name
        assert all(cell["images_per_second"] > 0 for cell in cells.values())
    assert out.count("| tiny |") == len(methods)


def test_without_a_device(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["cuda_device.py"])
    with pytest.raises(SystemExit) as stop:
        cuda_device.main()
    assert stop.value.code == 2 and "--smoke" in capsys.readouterr().err


def test_the_table_compares_with_the_plain_procedure_and_projects():
    cells = {PLAIN: {1: Cell(0.5, 10**9)}, "LTX released": {1: Cell(1.0, 10**9), 8: Cell(5.0, 2 * 10**9)}}
    last = table({"m": cells}, (1, 8, 32)).splitlines()[-1]
    assert last == "| m | LTX released | 1 (1.0) | 5 (2.0) |  | 10.00 | 2.78 |"


def test_a_cell_that_does_not_fit_is_empty(monkeypatch):
    def call(images, classes):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert cuda_device.timed(call, 2, (8, 8), torch.device("cpu"), 0.0) is None
