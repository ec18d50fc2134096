"""Files that are whole or not there at all, and readers that run no code."""

import os
import stat

import pytest
import torch

from ltx.config import UserError
from ltx.models.checkpoints import load_safetensors, load_state, load_weights, save_safetensors, save_state
from ltx.models.files import replace_file


def test_safetensors_round_trip_with_metadata(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "view": torch.randn(4, 6)[:, ::2]}
    save_safetensors(tmp_path / "x" / "w.safetensors", tensors, {"n": 3, "list": [1, "two"], "none": None})
    loaded, metadata = load_safetensors(tmp_path / "x" / "w.safetensors")
    assert metadata == {"n": 3, "list": [1, "two"], "none": None}
    assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[key], tensors[key]) for key in tensors)


def test_state_round_trip(tmp_path):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    save_state(tmp_path / "s.pt", {"optimizer": optimizer.state_dict(), "rows": [{"loss": 0.5}], "epoch": 2})
    state = load_state(tmp_path / "s.pt")
    assert state["rows"] == [{"loss": 0.5}] and state["epoch"] == 2
    assert torch.equal(
        state["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )


class Evil:
    """Runs a command when it is unpickled blindly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_that_wants_to_run_code_is_refused(tmp_path):
    torch.save({"state_dict": Evil(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"refused .*evil.ckpt"):
        load_weights(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "short"])
def test_damaged_files(tmp_path, name, damage):
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save({"a": torch.randn(1000)}, path)
    else:
        save_safetensors(path, {"a": torch.randn(1000)}, {})
    content = path.read_bytes()
    path.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "text": b"hello\n" * 50, "short": b"\x00"}[damage]
    )
    with pytest.raises(UserError, match=name) as error:
        load_weights(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {"a": 3}, torch.zeros(2), {"state_dict": {"a": "text"}}]
)
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="is not a state dict"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_nested_and_prefixed_state_dicts(tmp_path, key):
    torch.save({key: {"module.a": torch.ones(2)}, "epoch": 3}, tmp_path / "w.pth")
    assert torch.equal(load_weights(tmp_path / "w.pth")["a"], torch.ones(2))


def test_replace_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary):
        with open(temporary, "w") as file:
            file.write("half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_replace_writes_elsewhere_until_it_is_whole(tmp_path):
    path, seen = tmp_path / "file", []

    def write(temporary):
        with open(temporary, "w") as file:
            file.write("new")
        seen.append((path.exists(), os.path.dirname(temporary) == str(tmp_path)))

    replace_file(path, write)
    assert seen == [(False, True)] and path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
