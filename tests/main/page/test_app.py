"""`main/app.py`: its flags and what it says where it cannot start."""

import importlib.util
import socket

import pytest

from ltx.main import app


def test_without_gradio_one_line_says_what_to_install(run_script, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert "run 'pip install -r requirements-app.txt'" in run_script(app).error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps", "51"], "--steps 51: wanted 0 to 50"),
        (["--port", "70000"], "--port 70000: wanted 0 to 65535"),
        (["--max-megapixels", "0"], "--max-megapixels 0: must be at least 1"),
        (["--time-limit", "0"], "--time-limit 0: must be at least 1"),
        (["--explainee-model-name", "resnet19"], "unknown model 'resnet19'"),
        (["--explainee-checkpoint", "none.pth"], "no such file"),
        (["--port", "TAKEN"], "another program listens there"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1"),
    ],
)
def test_wrong_flags_are_one_line(flags, words, run_script, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        flags = [str(taken.getsockname()[1]) if flag == "TAKEN" else flag for flag in flags]
        assert words in run_script(app, *flags).error


def test_the_machinery_needs_no_gradio():
    for name in ("answers", "guard", "models", "options", "server", "uploads"):
        source = importlib.util.find_spec(f"ltx.main.page.{name}").loader.get_source(f"ltx.main.page.{name}")
        assert not [line for line in source.splitlines() if line.startswith(("import gradio", "from gradio"))]
