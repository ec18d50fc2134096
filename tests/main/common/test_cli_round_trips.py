"""Options to a command line and back: every dataclass of options, and what run.json stores of them."""

import dataclasses
import json
import types
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx import config
from ltx.config import UserError
from ltx.main.common import cli
from ltx.main.runs.run_folder import resolved_options
from ltx.main.seg_classification.options import FinetuneOptions
from ltx.tests.support.mutations import DETERMINISTIC
from ltx.tests.support.scripts import arguments, options_classes

CLASSES = options_classes()
# No NUL (no operating system passes one on), no surrogates (they are no text), and not empty.
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
# Several values follow one flag, so none of them may look like the next one.
WORD = TEXT.filter(lambda text: not text.startswith("-"))
PATH = WORD.map(Path).filter(lambda path: str(path) != ".")
OF_TYPE = {
    bool: st.booleans(),
    int: st.integers(-(10**12), 10**12),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: TEXT,
    Path: PATH,
}

# Of several values; one that begins with a dash would be taken for a flag.
OF_ITEM = {Path: PATH, str: WORD, int: st.integers(0, 10**9), float: st.floats(0, 1e9)}


def values_of(field: dataclasses.Field, hint) -> st.SearchStrategy:
    """Every value that a field may have."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    word = (field.metadata["metavar"] or "").partition("|")[2]
    if str in kinds and len(kinds) > 2:
        return OF_TYPE[kinds[0]] | st.just(word) | st.none()
    found = []
    for kind in kinds:
        if kind is type(None):
            if field.default is None:
                found.append(st.none())
        elif typing.get_origin(kind) is tuple:
            words = OF_ITEM[typing.get_args(kind)[0]]
            found.append(st.lists(words, min_size=1, max_size=3).map(tuple))
        elif field.metadata["choices"]:
            found.append(st.sampled_from(field.metadata["choices"]))
        else:
            found.append(OF_TYPE[kind])
    return st.one_of(found)


def any_of(options_class) -> st.SearchStrategy:
    """Any instance of a dataclass of options."""
    hints = typing.get_type_hints(options_class)
    fields = dataclasses.fields(options_class)
    return st.builds(options_class, **{f.name: values_of(f, hints[f.name]) for f in fields})


def test_every_script_has_its_options_here():
    assert {"FinetuneOptions", "PretrainOptions", "ReportOptions"} <= {c.__name__ for c in CLASSES}


@pytest.mark.parametrize("options_class", CLASSES, ids=lambda c: c.__name__)
def test_options_to_a_command_line_and_back(options_class):
    @DETERMINISTIC
    @given(any_of(options_class))
    def there_and_back(options):
        values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        assert cli.parse(options_class, arguments(options_class, values)) == options

    there_and_back()


@pytest.mark.parametrize("recipe", list(config.RECIPES))
def test_what_a_recipe_sets_comes_back(recipe):
    argv = ["--recipe", recipe, "--explainee-model-name", "vit_digits", "--seed", "7"]
    options = cli.parse(FinetuneOptions, argv)
    assert cli.parse(FinetuneOptions, arguments(FinetuneOptions, vars(options))) == options


@DETERMINISTIC
@given(any_of(FinetuneOptions))
def test_what_run_json_stores_gives_the_same_options(options):
    stored = json.loads(json.dumps(resolved_options(options)))
    again = cli.parse(FinetuneOptions, arguments(FinetuneOptions, stored))
    assert again == options
    assert resolved_options(again, only_identity=True) == resolved_options(options, only_identity=True)


@DETERMINISTIC
@given(st.lists(TEXT, max_size=6))
def test_any_words_are_options_or_one_error(words):
    """No other exception, and `--help` alone ends the process."""
    try:
        options = cli.parse(FinetuneOptions, words)
    except UserError as error:
        assert "--help lists the flags" in str(error)
    except SystemExit as stop:
        assert stop.code == 0 and {"-h", "--help"} & set(words)
    else:
        assert isinstance(options, FinetuneOptions)
