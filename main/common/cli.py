"""What every script shares: flags from the dataclasses of `config`, logging, errors, the closing line.

PyTorch is imported only where it is needed, and the scripts import what they run inside `main`: so `--help`
and a wrong command line are answered at once.
"""

import argparse
import dataclasses
import errno
import functools
import json
import logging
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ltx import config
from ltx.config import UserError
from ltx.main.common import options as options_module
from ltx.main.common.recipes import with_recipe

if TYPE_CHECKING:
    pass


# Options that name what a script makes, and a folder whose reader says more than that it is not there.
_NOT_CHECKED = ("output", "default_root_dir", "segmentation_root")

# Full disks and quotas, read-only ones, broken ones, too many open files, no memory for another process.
_OF_THE_MACHINE = {
    getattr(errno, name, None)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "EMFILE", "ENFILE", "ENOMEM")
}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the script's own line breaks, and does not call None a default."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


def parse(options_class: type, argv: list[str] | None = None, description: str | None = None):
    """Command line to an instance of a `config` dataclass.

    A flag has its field's name with dashes (or the name the field asks for). Booleans take `True` / `False`,
    or stand alone for true. A field without a flag prefix in its metadata (`flag="NAME"`) is positional.
    Flags of the published commands that have no effect here are accepted with a warning. What is not given
    is as the recipe has it, where the options have one.

    Raises:
        UserError: an unknown flag, a missing or a wrong value.
    """
    parser = _Parser(
        description=description or options_class.__doc__,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    groups, untold = {}, object()
    hints = typing.get_type_hints(options_class)
    for field in dataclasses.fields(options_class):
        title = field.metadata["group"] or "options"
        groups.setdefault(title, parser.add_argument_group(title) if title not in groups else None)
        _add_flag(groups[title], field, hints[field.name])
    ignored = options_module.IGNORED_FLAGS + getattr(options_class, "ignored_flags", ())
    for flag in ignored:
        parser.add_argument(flag, nargs="?", const="", dest=f"ignored{flag}", help=argparse.SUPPRESS)
    # What is there already gets no default, so that only what is given changes.
    untouched = argparse.Namespace(**{field.name: untold for field in dataclasses.fields(options_class)})
    given = vars(parser.parse_args(argv, untouched))
    for flag in ignored:
        name = f"ignored{flag}"
        if given.pop(name) is not None:
            logging.getLogger(__name__).warning("%s has no effect here and is ignored", flag)
    told = {name: value for name, value in given.items() if value is not untold}
    return with_recipe(
        options_class,
        {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()},
    )


def arguments(options_class: type, values: dict[str, Any]) -> list[str]:
    """The command line that `parse` turns into these options again.

    Args:
        options_class: a dataclass of `config`.
        values: options by field name, as they are or as run.json stores them; others have their defaults.

    Raises:
        UserError: a name that is no option.
    """
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    flags, positional = [], []
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"'{name}' is no option")
        if value is None:
            continue
        flag, many = _flag(fields[name]), isinstance(value, list | tuple)
        texts = [str(part) for part in (value if many else [value])]
        if not flag.startswith("-"):
            positional += texts
        elif many:
            flags += [flag, *texts]
        else:
            flags.append(f"{flag}={texts[0]}")
    return [*flags, "--", *positional] if positional else flags


def _flag(field: dataclasses.Field) -> str:
    return field.metadata["flag"] or "--" + field.name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line as any other mistake, in one line and without the list of all flags."""

    def error(self, message: str):
        raise UserError(f"{message} ({self.prog} --help lists the flags)")


def _add_flag(group, field: dataclasses.Field, hint) -> None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(option for option in options if option is not type(None))
    required = field.default is dataclasses.MISSING
    arguments = {"help": field.metadata["help"], "metavar": field.metadata["metavar"]}
    if typing.get_origin(kind) is tuple:
        arguments |= {"nargs": "+", "type": typing.get_args(kind)[0]}
    elif int in options and str in options:
        arguments |= {"type": _number_or_auto}
    elif kind is bool:
        arguments |= {"type": _boolean, "nargs": "?", "const": True}
        arguments["metavar"] = arguments["metavar"] or "True|False"
    else:
        arguments |= {"type": kind, "choices": field.metadata["choices"]}
        if arguments["choices"]:
            del arguments["metavar"]
    name = _flag(field)
    if name.startswith("-"):
        arguments |= {
            "dest": field.name,
            "default": None if required else field.default,
            "required": required,
        }
        group.add_argument(name, **arguments)
    else:
        arguments["metavar"] = name
        group.add_argument(field.name, **arguments)


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"wanted True or False, got '{text}'")
    return values[text.lower()]


def _number_or_auto(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wanted a whole number or 'auto', got '{text}'") from None


def script(options_class: type) -> Callable:
    """Decorates the `main(options)` of a script: without options it takes those of the command line."""

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def start(options=None):
            return run_script(options_class, main) if options is None else main(options)

        return start

    return decorate


def run_script(options_class: type, main: Callable, argv: list[str] | None = None) -> None:
    """Parses the command line, runs `main(options)` and prints its closing line of JSON.

    Args:
        options_class: dataclass of `config`.
        main: takes the options, returns (run folder or None, results).
        argv: command line; default `sys.argv`.

    Exits with code 2 and one line on a user's mistake or where the machine fails (a full disk, a reading
    process that died), 130 on Ctrl-C.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        options = parse(options_class, argv, sys.modules[main.__module__].__doc__)
        _check_paths(options)
        if getattr(options, "verbose", False):
            logging.getLogger().setLevel(logging.INFO)
        run, results = main(options)
    except UserError as error:
        _end_with(str(error))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except (OSError, RuntimeError) as error:
        message = _failure_of_machine(error)
        if message is None:
            raise
        _end_with(message)
    closing = {"run": None if run is None else str(Path(run).absolute()), "results": results}
    print(json.dumps(closing | (_left_out(run) if run is not None else {})))


def _left_out(run: Path) -> dict[str, int]:
    """Of a run that skipped images, or ended some for their numbers: how many."""
    from ltx.main.runs.skipped import counts

    return {name: n for name, n in counts(run).items() if n}


def _end_with(message: str) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _failure_of_machine(error: OSError | RuntimeError) -> str | None:
    """What to tell the user of an error that is neither theirs nor ours, None of any other."""
    if isinstance(error, OSError):
        if error.errno not in _OF_THE_MACHINE:
            return None
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; what was written before is whole, and the same command goes on"
    from ltx.datasets.workers import dead_worker

    return dead_worker(error)


def _check_paths(options) -> None:
    """What the user names, files and folders, is there."""
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
    """Values of the options that another script's dataclass has too, but for those of another meaning.

    Scores are taken in float32, whatever precision the maps were made in.
    """
    names = {field.name for field in dataclasses.fields(options_class)} - set(leave_out)
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name in names
    }
