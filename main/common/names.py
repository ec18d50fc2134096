"""Names: a choice of them on the command line, and random seeds from them."""

import difflib
import hashlib
from collections.abc import Iterable

from ltx.config import UserError


def choose_names(
    flag: str, kind: str, text: str, known: Iterable[str], shortcuts: Iterable[str] = ()
) -> list[str]:
    """Return the names of `NAME[,NAME...]`, each once, in the order given.

    Args:
        flag: the flag, for messages.
        kind: what the names are of, for messages.
        text: the flag's value.
        known: names to choose from.
        shortcuts: names of groups, which are allowed too.

    Raises:
        UserError: an unknown name, or none.
    """
    known, there = [*known], ", ".join([*known, *shortcuts])
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known and name not in shortcuts:
            raise UserError(f"{flag} {name}: no such {kind}{did_you_mean(name, known)}; there are {there}")
    if not names:
        raise UserError(f"{flag} names no {kind}; there are {there}")
    return names


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` with the most similar known name, "" if none is similar."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def seed_of(text: str) -> int:
    """Return a seed in [0, 2**64) that depends on the text alone, for draws that depend on no order."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
