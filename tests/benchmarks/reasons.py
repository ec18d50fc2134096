"""Is it the explainee's reasons that maps show? Three questions to the maps in run folders of any methods.

    python tests/benchmarks/reasons.py shape data/results/LTX data/results/BASELINES
    python tests/benchmarks/reasons.py seeds data/results/LTX-1 data/results/LTX-2 data/results/RISE-1 ...
    python tests/benchmarks/reasons.py randomised data/results/LTX data/results/LTX-randomised ...

`shape`: the most salient pixels of each map, as a white shape on grey, are shown to a fresh classifier, which
is to tell the class that the map explains. A learned explainer that paints the class itself lets it.
`seeds`: rank correlation, and overlap of the most salient pixels, of maps of the same name in different runs:
explainers trained with different seeds, or methods that draw (smoothgrad, rise) with different --seed.
`randomised`: the same between the maps of the true explainee and of one whose weights were drawn anew
(--randomise-weights True). A map that shows the model's reasons must not survive that.
Ends with one line of JSON.
"""

import argparse
import itertools
import sys
from collections import defaultdict
from pathlib import Path
from runpy import run_path

if not __package__:  # run as a file
    run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))

import numpy as np
from tqdm import tqdm

from ltx.config import UserError
from ltx.main.runs.mask_job import RANDOMISED
from ltx.tests.benchmarks import reasons_measures as measures
from ltx.tests.benchmarks.common import close
from ltx.tests.benchmarks.reasons_maps import Run, labelled, open_runs

_LEARNED = ("ltx", "pltx")


def shape(options: argparse.Namespace) -> dict[str, dict]:
    """How often a classifier reads the class from each method's shapes, in percent, beside chance."""
    runs = open_runs(options.runs)
    classes = runs[0].classes
    kept = measures.enough(classes, options.folds)
    classes = classes[kept]
    counts = np.unique(classes, return_counts=True)[1]
    chance = 100 * counts.max() / len(classes)
    print(
        f"{len(classes)} of {len(kept)} images, {len(counts)} classes, {options.folds} folds; the commonest "
        f"class alone is right on {chance:.1f}%"
    )
    found = {}
    for label, (run, variant) in tqdm(labelled(runs, options.methods).items(), unit="method"):
        maps, found[label] = run.maps(variant)[kept], {}
        for share, (name, reader) in itertools.product(options.share, measures.READERS.items()):
            pictures = measures.shapes(maps, share, options.grid)
            right = measures.cross_validated(reader, pictures, classes, options.folds, options.seed)
            found[label][f"{name}_{100 * share:g}"] = 100 * right
    return {"chance": {"accuracy": chance}} | _table(found, 1)


def seeds(options: argparse.Namespace) -> dict[str, dict]:
    """Agreement of the maps of the same name in different runs, averaged over the pairs of runs."""
    runs = open_runs(options.runs)
    by_variant = defaultdict(list)
    for run, variant in labelled(runs, options.methods).values():
        by_variant[variant].append(run)
    pairs = {variant: list(itertools.combinations(some, 2)) for variant, some in by_variant.items()}
    pairs = {variant: some for variant, some in pairs.items() if some}
    if not pairs:
        raise UserError("no two of the runs have maps of the same name; give runs of the same method")
    for pair in itertools.chain(*pairs.values()):
        _check_seeds(*pair)
    found = {
        variant: _agreement([(one, variant, other, variant) for one, other in some], options.share[0])
        for variant, some in tqdm(pairs.items(), unit="method")
    }
    return _table(found, 3)


def _check_seeds(one: Run, other: Run) -> None:
    """Raises `UserError` where two runs were made with the same seed."""
    learned = one.record.get("method") in _LEARNED
    of = [
        run.record["explainer"]["sha256"] if learned else run.record["options"]["seed"]
        for run in (one, other)
    ]
    if of[0] == of[1]:
        what = "start from the same explainer" if learned else f"have the same --seed {of[0]}"
        raise UserError(f"{one.folder} and {other.folder} {what}; give runs of different seeds")


def randomised(options: argparse.Namespace) -> dict[str, dict]:
    """Agreement of the maps of the true explainee with those of one with random weights."""
    runs = open_runs(options.runs)
    true = {}
    for run, variant in labelled(runs, options.methods).values():
        if variant in true:
            raise UserError(f"{run.folder} and {true[variant][0].folder} both have maps {variant}; give one")
        true[variant] = run, variant
    twins = {
        label: (run, variant)
        for label, (run, variant) in labelled(runs).items()
        if variant.endswith(RANDOMISED) and variant.removesuffix(RANDOMISED) in true
    }
    if not twins:
        raise UserError(
            "none of the runs has maps of a random model beside those of the true one; give runs of both, "
            "the former made with --randomise-weights True"
        )
    found = {
        label: _agreement([(*true[variant.removesuffix(RANDOMISED)], run, variant)], options.share[0])
        for label, (run, variant) in tqdm(twins.items(), unit="method")
    }
    return _table(found, 3)


def _agreement(pairs: list[tuple[Run, str, Run, str]], share: float) -> dict[str, np.ndarray]:
    """Measures by name, (N,), averaged over pairs of runs and variants."""
    found = [
        measures.agreement(one.maps(variant), other.maps(its), share) for one, variant, other, its in pairs
    ]
    return {name: np.mean([pair[name] for pair in found], axis=0) for name in found[0]}


def _table(found: dict[str, dict[str, np.ndarray]], digits: int) -> dict[str, dict]:
    """Prints means with 95% intervals over the images, as Markdown; returns them by row and column."""
    columns = list(next(iter(found.values())))
    print(f"| method | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    results = {}
    for label, row in found.items():
        results[label], cells = {}, []
        for name, values in row.items():
            mean, low, high = measures.with_interval(values)
            results[label] |= {name: mean, f"{name}_low": low, f"{name}_high": high}
            cells.append(f"{mean:.{digits}f}")
            cells[-1] += "" if low is None else f" ({low:.{digits}f} to {high:.{digits}f})"
        print(f"| {label} | {' | '.join(cells)} |")
    return results


def _share(text: str) -> float:
    if not 0 < (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"wanted a share between 0 and 1, got {text}")
    return value


def main(argv: list[str] | None = None) -> None:
    """Answers one question and prints the closing line; exits with 2 on a user's mistake."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    questions = flags.add_subparsers(required=True, metavar="shape|seeds|randomised")
    for question in (shape, seeds, randomised):
        own = questions.add_parser(question.__name__, help=question.__doc__)
        own.set_defaults(question=question)
        own.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders with mask files")
        own.add_argument("--methods", type=lambda text: text.split(","), help="only these, with commas")
        shares = [0.1, 0.2] if question is shape else [0.1]
        own.add_argument("--share", nargs="+" if question is shape else 1, type=_share, default=shares,
                         help="share of the pixels that counts as most salient")  # fmt: skip
        if question is shape:
            own.add_argument("--grid", type=int, default=32, help="pixels of a shape, a side")
            own.add_argument("--folds", type=int, default=5, help="parts of the cross-validation")
            own.add_argument("--seed", type=int, default=42, help="of the folds and the classifiers")
    options = flags.parse_args(argv)
    try:
        close(options.question(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
