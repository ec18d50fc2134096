"""Files of weights: what is damaged or wants to run code is refused in one line, and nothing is run."""

import argparse
import pathlib
import pickle
import sys
import types

import pytest
import torch

from ltx.config import UserError
from ltx.models.checkpoints import load_state, load_weights


class RunsCode:
    """What a hostile file does: unpickling it calls a function."""

    def __init__(self, marker: pathlib.Path):
        self.marker = marker

    def __reduce__(self):
        return (pathlib.Path.touch, (self.marker,))


class RunsBuiltin(RunsCode):
    def __reduce__(self):
        return (eval, (f"open({str(self.marker)!r}, 'w')",))


@pytest.mark.parametrize("kind", [RunsCode, RunsBuiltin])
@pytest.mark.parametrize("as_archive", [True, False])
def test_code_in_a_file_is_never_run(kind, as_archive, tmp_path):
    marker, path = tmp_path / "code was run", tmp_path / "hostile.ckpt"
    torch.save({"state_dict": {}, "callbacks": kind(marker)}, path, _use_new_zipfile_serialization=as_archive)
    with pytest.raises(UserError, match=r"refused .*hostile\.ckpt: .*it wants to load"):
        load_weights(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the test's file would not have run code"


def test_a_bare_pickle_is_refused(tmp_path):
    marker, path = tmp_path / "code was run", tmp_path / "bare.pth"
    path.write_bytes(pickle.dumps(RunsCode(marker)))
    with pytest.raises(UserError, match=r"bare\.pth"):
        load_weights(path)
    assert not marker.exists()


def lightning_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = []
    return module


def test_plain_classes_of_lightning_are_replaced_by_empty_ones(tmp_path, monkeypatch):
    names = ("pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.utilities")
    for name in names:
        monkeypatch.setitem(sys.modules, name, lightning_module(name))
    classes = {}
    for name, base in (
        ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", object),
        ("pytorch_lightning.utilities.parsing.AttributeDict", dict),
    ):
        module, _, simple = name.rpartition(".")
        classes[simple] = type(simple, (base,), {"__module__": module})
        monkeypatch.setitem(sys.modules, module, lightning_module(module))
        setattr(sys.modules[module], simple, classes[simple])
    state = {
        "epoch": 3,
        "state_dict": {"weight": torch.arange(3.0)},
        "callbacks": {classes["ModelCheckpoint"]: {"dirpath": pathlib.PosixPath("/somewhere")}},
        "hyper_parameters": classes["AttributeDict"](lr=0.1, args=argparse.Namespace(seed=1)),
    }
    torch.save(state, tmp_path / "lightning.ckpt")
    for name in [*names, *(c.__module__ for c in classes.values())]:
        monkeypatch.delitem(sys.modules, name)
    loaded = load_state(tmp_path / "lightning.ckpt")
    assert loaded["epoch"] == 3
    assert loaded["hyper_parameters"]["lr"] == 0.1
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(3.0))
    assert torch.equal(load_weights(tmp_path / "lightning.ckpt")["weight"], torch.arange(3.0))


@pytest.mark.parametrize("as_archive", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_truncated_files_are_one_line(share, as_archive, tmp_path):
    path = tmp_path / "whole.pth"
    torch.save({"weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=as_archive)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"whole\.pth") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_a_text_file_is_one_line(tmp_path):
    (tmp_path / "page.pth").write_text("<!doctype html>\n<html>404</html>\n")
    (tmp_path / "page.safetensors").write_text("<!doctype html>\n<html>404</html>\n")
    for name in ("page.pth", "page.safetensors"):
        with pytest.raises(UserError, match=name):
            load_weights(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no such weights file: .*nothing\.pth"):
        load_weights(tmp_path / "nothing.pth")
