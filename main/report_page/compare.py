"""Comparison of several runs, which must have the same images, class, explainee and fill."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ltx.config import FILLS, UserError
from ltx.datasets.manifest import read_names
from ltx.main.common import progress
from ltx.main.report_page.collect import EVALUATORS, Result
from ltx.main.report_page.options import ReportOptions
from ltx.main.report_page.rows import Comparison, Row, in_order, labelled


def compare(results: Sequence[Result], protocol: str, options: ReportOptions) -> list[Comparison]:
    """Return the comparisons of a protocol, one per fill that all runs are scored with, the main one first.

    Args:
        results: of all runs, of any protocol and settings.
        protocol: of the comparisons.
        options: `fill`, `score_class`, `common_images`, `exclude_manifest`.

    Raises:
        UserError: the runs differ in what must be equal; the message names it.
    """
    by_run = defaultdict(list)
    for result in results:
        if result.protocol == protocol:
            by_run[result.run.name].append(result)
    if not by_run:
        return []
    keys = _common_settings(by_run, options)
    return [_compare([_merged(some, key) for some in by_run.values()], key, options) for key in keys]


def _key(result: Result) -> tuple[str | None, str]:
    return result.settings.get("fill"), result.settings["class"]


def _common_settings(by_run: dict[str, list[Result]], options: ReportOptions) -> list[tuple[str | None, str]]:
    """Return fill and class of the comparisons, the main one first."""
    flags = {"fill": options.fill, "score_class": options.score_class}
    found = {}
    for name, results in by_run.items():
        wanted = [
            key
            for key in dict.fromkeys(map(_key, results))
            if (key[0] is None or options.fill in (None, key[0])) and options.score_class in (None, key[1])
        ]
        if not wanted:
            run, asked = (
                results[0].run,
                " ".join(f"--{k.replace('_', '-')} {v}" for k, v in flags.items() if v),
            )
            has = ", ".join(_words(_key(result)) for result in results)
            raise UserError(
                f"{name} has results for {has} alone, and the report asks for {asked}; make them with "
                f"'python {EVALUATORS[results[0].protocol]} {progress.display_path(run.folder)} {asked}'"
            )
        found[name] = wanted
    first = next(iter(found))
    common = [key for key in found[first] if all(key in keys for keys in found.values())]
    if not common:
        has = "; ".join(f"{name}: {', '.join(map(_words, keys))}" for name, keys in found.items())
        raise UserError(
            f"the runs cannot stand in one table, they were scored with different fills or classes ({has}); "
            "evaluate them alike"
        )
    own = by_run[first][0].run.record.explained_class
    order = sorted(common, key=lambda key: (key[1] != own, FILLS.index(key[0]) if key[0] in FILLS else 9))
    return [key for key in order if key[1] == order[0][1]]


def _words(key: tuple[str | None, str]) -> str:
    return f"class {key[1]}" if key[0] is None else f"fill {key[0]}, class {key[1]}"


def _merged(results: list[Result], key: tuple[str | None, str]) -> Result:
    """Join a run's results: the one of most images, then most metrics; others add the metrics it lacks."""
    same = [result for result in results if _key(result) == key]
    same.sort(key=lambda result: (-len(result.index), -len(result.better), result.folder.name))
    first = same[0]
    measures = {variant: dict(found) for variant, found in first.measures.items()}
    better = dict(first.better)
    for other in same[1:]:
        if not np.array_equal(other.index, first.index) or measures.keys() != other.measures.keys():
            continue
        for variant, found in other.measures.items():
            measures[variant] = found | measures[variant]
        better = other.better | better
    return replace(first, measures=measures, better=better)


def _compare(results: list[Result], key: tuple[str | None, str], options: ReportOptions) -> Comparison:
    for other in results[1:]:
        _check_alike(results[0], other)
    images, left_out = _common_images(results, options)
    where = [_positions(result.images, images) for result in results]
    classes = results[0].classes[where[0]]
    for result, places in zip(results[1:], where[1:], strict=True):
        differ = np.flatnonzero(result.classes[places] != classes)
        if differ.size:
            i = differ[0]
            raise UserError(
                f"{result.run.name} and {results[0].run.name} cannot stand in one table: the class scored "
                f"differs on {differ.size} images, first {images[i]} ({result.classes[places][i]}, there "
                f"{classes[i]})"
            )
    rows = [
        Row(
            "", variant, result.run, result.index[places],
            result.run.record.candidates.get(variant, 1),
            {name: measure.take(places) for name, measure in result.measures[variant].items()},
            result.folder,
        )
        for result, places in zip(results, where, strict=True)
        for variant in in_order(list(result.measures))
    ]  # fmt: skip
    better = _ordered_metrics(results)
    return Comparison(
        results[0].protocol, key[0], key[1], images, left_out, classes, better, labelled(rows)
    )  # fmt: skip


def _check_alike(first: Result, other: Result) -> None:
    """Raise `UserError` if two runs differ in explainee, image set, class or size."""
    here, there = _identity(first), _identity(other)
    differences = [
        f"{name} is {there[name]}, in {first.run.name} {here[name]}"
        for name in here
        if here[name] != there[name]
    ]
    if differences:
        raise UserError(
            f"{other.run.name} and {first.run.name} cannot stand in one table: {'; '.join(differences)}"
        )


def _identity(result: Result) -> dict[str, str]:
    record, images = result.run.record, dict(result.run.record.dataset)
    # The images' place and number may differ: their names decide which ones are compared.
    parts = [str(images.pop("kind", "?"))]
    split = images.pop("split", None)
    parts += [f"{key} {value}" for key, value in sorted(images.items())
              if key not in ("root", "labels", "n_images", "names")]  # fmt: skip
    if parts[0] == "digits":
        parts.append(f"split {split}")
    return {
        "the explainee": f"{record.explainee['name']} (weights {record.explainee['sha256'][:12]})",
        "the image set": ", ".join(parts),
        "the class explained": result.run.record.explained_class,
        "the input size": "x".join(map(str, record.input_size)),
    }


def _common_images(results: list[Result], options: ReportOptions) -> tuple[list[str], int]:
    """Return the names of the images to compare, in the first run's order, and the number of others."""
    sets = [set(result.images) for result in results]
    common, all_images = set.intersection(*sets), set.union(*sets)
    if common != all_images and not options.common_images:
        i = next(i for i, names in enumerate(sets) if names != sets[0])
        only = sorted(sets[0] ^ sets[i])[0]
        raise UserError(
            f"{results[i].run.name} and {results[0].run.name} cannot stand in one table: they have "
            f"{len(sets[i])} and {len(sets[0])} images, and {only} is in one of them alone; "
            f"--common-images compares the {len(common)} that all runs have"
        )
    if options.exclude_manifest is not None:
        common -= set(read_names(options.exclude_manifest))
    images = [name for name in results[0].images if name in common]
    if not images:
        raise UserError("no image is left that all runs have; look at the runs and --exclude-manifest")
    return images, len(all_images) - len(images)


def _positions(names: list[str], wanted: list[str]) -> np.ndarray:
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[name] for name in wanted])


def _ordered_metrics(results: list[Result]) -> dict[str, bool | None]:
    """Return the metrics of all results in the order of the result with most."""
    better = {}
    for result in sorted(results, key=lambda result: -len(result.better)):
        order = next(iter(result.measures.values()))
        better |= {name: result.better.get(name) for name in order if name not in better}
    return better
