"""Progress bars on terminals and in logs; paths in messages."""

import io
import re
import sys

from ltx.main.common import progress


def test_paths_are_shown_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert progress.display_path(tmp_path / "a" / "b") == "a/b"
    assert progress.display_path("/elsewhere/x") == "/elsewhere/x"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_inner_bars_are_shown_and_wiped_on_a_terminal_and_leave_nothing_in_a_pipe(monkeypatch):
    seen = {}
    for stream in (io.StringIO(), _Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(progress.inner_bar(range(3), unit="thing")) == [0, 1, 2]
        with progress.inner_bar(total=2) as bar:
            bar.update(2)
        seen[stream.isatty()] = stream.getvalue()
    assert seen[False] == ""
    assert "thing" in seen[True] and seen[True].endswith("\r")


def test_progress_in_a_log_is_lines_half_a_minute_apart(monkeypatch, capsys):
    """And in a terminal it is tqdm's own."""
    assert list(progress.progress_bar(range(1000), "run", unit="image")) == list(range(1000))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "\r" not in "".join(lines)
    assert lines[0].startswith("run:   0%|") and lines[1].startswith("run: 100%|") and "1000/1000" in lines[1]
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    list(progress.progress_bar(range(3), "run", miniters=1))
    assert re.findall(r"\d/3", capsys.readouterr().err)[:4] == ["0/3", "1/3", "2/3", "3/3"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(progress.progress_bar(range(3), "run"))
    assert capsys.readouterr().err.startswith("\rrun:   0%|")
