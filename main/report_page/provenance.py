"""What made the compared results: commands, versions, commits, seeds, images and models of every run."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltx.main.report_page.collect import Result, Run
from ltx.main.runs.skipped import NOT_FINITE_FILE, SKIPPED_FILE, counts, read_list


@dataclass(frozen=True)
class Provenance:
    """One run, in words.

    Attributes:
        name: of the run.
        folder: where it lies.
        command: what made the masks.
        facts: further facts by name.
        skipped: images that the run left out, with the reason.
    """

    name: str
    folder: str
    command: str
    facts: dict[str, str]
    skipped: list[str]


def provenance_of(run: Run, results: list[Result]) -> Provenance:
    """What run.json and the summaries say of a run."""
    record = run.record
    versions = record.get("versions", {})
    options = record["options"]
    explainer = record.get("explainer") or {}
    facts = {
        "commit": versions.get("commit", "unknown"),
        "seed": str(options.get("seed", "unknown")),
        "created": record.get("created", "unknown"),
        "images left out": str(counts(run.folder)["skipped"]),
        "images": f"{record.get('n_images', len(run.names))} of {_pairs(record['dataset'])}",
        "list of images (SHA-256)": record.get("identity", {}).get("images", "unknown"),
        "explainee": _pairs(record["explainee"]),
        "explainer": _pairs(explainer) or "none",
        "class explained": run.explained_class,
        "class that scores": record["score_class"],
        "methods": _pairs(record["methods"]) if record.get("methods") else record.get("method", "unknown"),
        "results": "; ".join(f"{result.folder.name} ({_pairs(result.settings)})" for result in results),
        "versions": _pairs({key: value for key, value in versions.items() if key != "commit"}),
        "all options": _pairs(options),
    }
    command = shlex.join(["python", *record.get("command", ["(not recorded)"])])
    return Provenance(run.name, str(run.folder), command, facts, _skipped(run, results))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _skipped(run: Run, results: list[Result]) -> list[str]:
    """Images that a run or its evaluations left out, with reasons; of very many the first."""
    found = read_list(run.folder / NOT_FINITE_FILE)
    for folder in (run.folder, *(result.folder for result in results)):
        found |= read_list(folder / SKIPPED_FILE)
    return [f"{name}: {reason}" for name, reason in found.items()]
