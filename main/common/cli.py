"""The shared frame of all scripts: flags from dataclasses of options, logging, errors, the closing line.

Scripts import what they run inside `main`, so that `--help` and a wrong command line are answered at once.
"""

import argparse
import dataclasses
import errno
import functools
import json
import logging
import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ltx import config
from ltx.config import UserError

# Flags of the published commands that have no effect here; each is accepted with one line of warning.
IGNORED_FLAGS = (
    "--plot-path",
    "--img-size",
    "--patch-size",
    "--is-clamp-between-0-to-1",
    "--is-sampled-train-data-uniformly",
    "--is-sampled-val-data-uniformly",
    "--is-explainer-convnet",
    "--is-explainee-convnet",
    "--is-freezing-explaniee-model",
    "--evaluation-experiment-folder-name",
    "--start-epoch-to-evaluate",
    "--n-batches-to-visualize",
)
# Paths that a script creates, and one whose reader has a more helpful message.
_NOT_CHECKED = ("output", "default_root_dir", "segmentation_root")

# Full disks and quotas, read-only ones, broken ones, too many open files, no memory for another process.
_OF_THE_MACHINE = {
    getattr(errno, name, None)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "EMFILE", "ENFILE", "ENOMEM")
}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the script's line breaks, and print no default of None."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


def parse(options_class: type, argv: list[str] | None = None, description: str | None = None):
    """Parse a command line into a dataclass of options.

    A flag has its field's name with dashes, unless the field names another. Booleans take `True` or `False`;
    a flag on its own is true. Flags of the published commands that have no effect here cause a warning.

    Raises:
        UserError: an unknown flag, a missing or a wrong value.
    """
    parser = _Parser(
        description=description or options_class.__doc__, formatter_class=_HelpFormatter, allow_abbrev=False
    )
    groups, hints = {}, typing.get_type_hints(options_class)
    for field in dataclasses.fields(options_class):
        title = field.metadata["group"] or "options"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_flag(groups[title], field, hints[field.name])
    ignored = IGNORED_FLAGS + getattr(options_class, "ignored_flags", ())
    for flag in ignored:
        parser.add_argument(flag, nargs="?", const="", dest=f"ignored{flag}", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    for flag in ignored:
        if given.pop(f"ignored{flag}") is not None:
            logging.getLogger(__name__).warning("%s has no effect here and is ignored", flag)
    return options_class(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    )


def _flag(field: dataclasses.Field) -> str:
    return field.metadata["flag"] or "--" + field.name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    """Report a wrong command line as a `UserError`, without the list of all flags."""

    def error(self, message: str):
        raise UserError(f"{message} ({self.prog} --help lists the flags)")


def _add_flag(group, field: dataclasses.Field, hint) -> None:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [kind for kind in members if kind is not type(None)]
    metavar, choices = field.metadata["metavar"], field.metadata["choices"]
    arguments = {"help": field.metadata["help"], "metavar": metavar}
    if typing.get_origin(kinds[0]) is tuple:
        arguments |= {"nargs": "+", "type": typing.get_args(kinds[0])[0]}
    elif len(kinds) > 1:
        arguments["type"] = _number_or_word(kinds[0], metavar.partition("|")[2])
    elif kinds[0] is bool:
        arguments |= {"type": _boolean, "nargs": "?", "const": True, "metavar": metavar or "True|False"}
    elif choices:
        arguments |= {"type": kinds[0], "choices": choices}
        del arguments["metavar"]
    else:
        arguments |= {"type": kinds[0], "metavar": metavar or ("PATH" if kinds[0] is Path else None)}
    name, required = _flag(field), field.default is dataclasses.MISSING
    if name.startswith("-"):
        arguments |= {"dest": field.name, "default": None if required else field.default}
        group.add_argument(name, required=required, **arguments)
    else:
        group.add_argument(field.name, **arguments | {"metavar": name})


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"wanted True or False, got '{text}'")
    return values[text.lower()]


def _number_or_word(kind: type, word: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return text if text == word else kind(text)
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"wanted {number} or '{word}', got '{text}'") from None

    return read


def script(options_class: type) -> Callable:
    """Decorate the `main(options)` of a script; called without options it reads the command line."""

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def start(options=None):
            return run_script(options_class, main) if options is None else main(options)

        return start

    return decorate


def run_script(options_class: type, main: Callable, argv: list[str] | None = None) -> None:
    """Parse the command line, run `main(options)` and print its closing line of JSON.

    Exits with code 2 and one line after a user's mistake or a failure of the machine (a full disk, a dead
    reading process), with 130 after Ctrl-C.

    Args:
        options_class: a dataclass of options.
        main: returns run folder (or None) and results, and by name numbers of images that were left out.
        argv: command line; default `sys.argv`.
    """
    os.environ.pop("MPLBACKEND", None)  # of a notebook, where matplotlib may not have it; scripts draw files
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that its encoding lacks
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        options = parse(options_class, argv, sys.modules[main.__module__].__doc__)
        _check_paths(options)
        if getattr(options, "verbose", False):
            logging.getLogger().setLevel(logging.INFO)
        run, results, *left_out = main(options)
    except UserError as error:
        _end_with(str(error))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    except (OSError, RuntimeError) as error:
        message = _failure_of_machine(error)
        if message is None:
            raise
        _end_with(message)
    counts = {name: n for part in left_out for name, n in part.items() if n}
    folder = None if run is None else str(Path(run).absolute())
    print(json.dumps({"run": folder, "results": results} | counts))


def _end_with(message: str) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _failure_of_machine(error: OSError | RuntimeError) -> str | None:
    """Return a message for an error of the machine, None for any other."""
    if isinstance(error, OSError):
        if error.errno not in _OF_THE_MACHINE:
            return None
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; finished files are intact, run the same command again to resume"
    from ltx.datasets.workers import dead_worker

    return dead_worker(error)


def _check_paths(options) -> None:
    """Raise `UserError` if a file or folder that the user names does not exist."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value is None or value == field.default or field.name in _NOT_CHECKED:
            continue
        for path in value if isinstance(value, list | tuple) else (value,):
            named = isinstance(path, Path) or field.metadata["metavar"] == "DIR"
            if named and str(path) != config.DIGITS and not Path(path).exists():
                raise UserError(f"{_flag(field)} {path}: no such file or folder")


def shared(
    options, options_class: type, leave_out: tuple[str, ...] = ("batch_size", "exclude_manifest", "precision")
) -> dict:
    """Return the values of the options that another dataclass has too.

    By default without those of another meaning there: scores are float32, whatever made the maps.
    """
    names = {field.name for field in dataclasses.fields(options_class)} - set(leave_out)
    own = {field.name for field in dataclasses.fields(options)}
    return {name: getattr(options, name) for name in own & names}
