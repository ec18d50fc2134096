"""Provenance of results: command, versions, commit, seed, images and models of every run."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltx.main.report_page.collect import Result, Run
from ltx.main.runs.skipped import NOT_FINITE_FILE, SKIPPED_FILE, counts, read_list


@dataclass(frozen=True)
class Provenance:
    """Facts of one run, as text.

    Attributes:
        name: of the run.
        folder: its path.
        command: the command that made the masks.
        facts: further facts by name.
        skipped: images that the run left out, with the reason.
    """

    name: str
    folder: str
    command: str
    facts: dict[str, str]
    skipped: list[str]


def provenance_of(run: Run, results: list[Result]) -> Provenance:
    """Return what run.json and the summaries record of a run."""
    record = run.record
    facts = {
        "commit": record.versions.get("commit", "unknown"),
        "seed": str(record.options.get("seed", "unknown")),
        "created": record.created,
        "images left out": str(counts(run.folder)["skipped"]),
        "images": f"{record.n_images} of {_pairs(record.dataset)}",
        "list of images (SHA-256)": record.identity.get("images", "unknown"),
        "explainee": _pairs(record.explainee),
        "explainer": _pairs(record.explainer or {}) or "none",
        "class explained": record.explained_class,
        "class that scores": record.score_class,
        "methods": _pairs(record.methods) or record.method,
        "results": "; ".join(f"{result.folder.name} ({_pairs(result.settings)})" for result in results),
        "versions": _pairs({key: value for key, value in record.versions.items() if key != "commit"}),
        "all options": _pairs(record.options),
    }
    command = shlex.join(["python", *record.command])
    return Provenance(run.name, str(run.folder), command, facts, _skipped(run, results))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _skipped(run: Run, results: list[Result]) -> list[str]:
    """Return the images that a run or its evaluations left out, with reasons."""
    found = read_list(run.folder / NOT_FINITE_FILE)
    for folder in (run.folder, *(result.folder for result in results)):
        found |= read_list(folder / SKIPPED_FILE)
    return [f"{name}: {reason}" for name, reason in found.items()]
