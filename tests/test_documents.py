"""Commands, flags, paths and links of every document."""

import dataclasses
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from ltx import config
from ltx.config import UserError
from ltx.main.common import cli
from ltx.tests.support import scripts

ROOT = config.ROOT
MAIN_README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Flags of other programs, and of scripts under tests/ that take no options class.
OTHER_FLAGS = {
    "--check",
    "--target",
    "--nodes",
    "--ntasks-per-node",
    "--gpus-per-task",
    "--nproc-per-node",
    "--array",
    "--gpus",
}


def documents() -> list[Path]:
    """Markdown files that Git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # no Git here: an archive
        return sorted(path for path in ROOT.rglob("*.md") if ".venv" not in path.parts)
    return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()]


DOCUMENTS = documents()
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@cache
def options_of(script: str) -> type:
    """Options class of a script under main/."""
    return scripts.module_of(ROOT / script).main.__annotations__["options"]


def shell_blocks(text: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language in ("bash", "sh")]


def commands(block: str) -> list[list[str]]:
    """Words of each command of a shell block, with the variables of its assignments filled in."""
    values, found = {"seed": "1"}, []
    for line in block.replace("\\\n", "").split("\n"):
        for name, value in values.items():
            line = line.replace(f"${name}", value)
        if assignment := re.fullmatch(r'(\w+)="(.*)"', line):
            values[assignment[1]] = assignment[2]
            continue
        for part in re.split(r"&&|;|\|(?=\s)", line):
            if words := shlex.split(part, comments=True):
                found.append(words)
    return found


def script_calls(path: Path) -> list[tuple[str, list[str]]]:
    """Script and arguments of every command that runs a file of the repository."""
    text, calls = path.read_text(encoding="utf-8"), []
    found = [words for block in shell_blocks(text) for words in commands(block)]
    prose = FENCE.sub("", text)
    found += [shlex.split(span) for span in SPAN.findall(prose) if span.startswith("python main/")]
    for words in found:
        for place, word in enumerate(words):
            if re.fullmatch(r"(main|tests)/[\w/]+\.py", word) and "pytest" not in words[:place]:
                calls.append((word, words[place + 1 :]))
    return calls


def known_flags() -> set[str]:
    flags = set(cli.IGNORED_FLAGS) | OTHER_FLAGS | {"--help"}
    for options in scripts.options_classes():
        flags |= {cli._flag(field) for field in dataclasses.fields(options)}
        flags |= set(getattr(options, "ignored_flags", ()))
    for script in [*ROOT.glob("tests/benchmarks/*.py"), *ROOT.glob("tests/faults/*.py")]:
        flags |= set(re.findall(r'"(--[\w-]+)"', script.read_text(encoding="utf-8")))
    return flags


def slugs(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_document
def test_commands_parse(path):
    for script, arguments in script_calls(path):
        assert (ROOT / script).is_file(), script
        if not script.startswith("main/"):
            flags = [word for word in arguments if word.startswith("--")]
            assert set(flags) <= known_flags(), (script, arguments)
            continue
        if "--help" in arguments:
            continue
        try:
            cli.parse(options_of(script), arguments)
        except UserError as error:
            pytest.fail(f"{path.name}: {script} {shlex.join(arguments)}: {error}")


def test_commands_are_found():
    calls = script_calls(MAIN_README)
    assert {Path(script).name for script, _ in calls} == {
        "app.py", "demo.py", "explain.py", "run_seg_cls.py", "run_seg_cls_opt.py", "seg_stage_a.py",
        "seg_stage_b.py",
    }  # fmt: skip
    assert sum(len(script_calls(path)) for path in DOCUMENTS) > 40
    with pytest.raises(UserError, match="no-such-flag"):
        cli.parse(options_of("main/explain.py"), ["--input", "a.jpg", "--no-such-flag"])


@each_document
def test_flags_exist(path):
    text = path.read_text(encoding="utf-8")
    code = SPAN.findall(FENCE.sub("", text)) + shell_blocks(text)
    named = {flag for part in code for flag in re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", part)}
    # `--val-...` stands for several.
    assert {flag for flag in named if not flag.endswith("-")} <= known_flags()


@each_document
def test_paths_exist(path):
    """Paths in code spans are of the repository or of the document's folder."""
    spans = SPAN.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
    for span in spans:
        if re.fullmatch(r"(main|models|datasets|tests|images)/[\w/.-]+", span):
            assert (ROOT / span).exists() or (path.parent / span).exists(), span


@each_document
def test_links_lead_somewhere(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in slugs(other), f"{path.name}: {target}"


@each_document
def test_prose_lines_are_short(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    long = [line for line in text.split("\n") if len(line) > 120 and not line.startswith(("|", "!["))]
    assert not long


def test_main_readme_takes_five_minutes():
    content = MAIN_README.read_bytes()
    assert content.count(b"\n") <= 200 and len(content) <= 15_000
    assert len(re.findall(r"^!\[", content.decode(), re.MULTILINE)) == 2


def test_every_folder_of_main_is_described():
    for folder in ROOT.glob("main/*/__init__.py"):
        assert (folder.parent / "README.md").is_file(), folder.parent
