import numpy as np
import pytest

from ltx.config import UserError
from ltx.main.common.names import choose_names, did_you_mean, seed_of

KNOWN = ("POS", "NEG", "RISE_deletion")


def test_names_are_chosen_once_in_their_order():
    assert choose_names("--metrics", "metric", " NEG,POS, NEG,all,", KNOWN, ("all",)) == ["NEG", "POS", "all"]


def test_unknown_names_are_one_line_with_the_nearest():
    with pytest.raises(UserError) as error:
        choose_names("--metrics", "metric", "rise_deletio", KNOWN, ("all",))
    assert str(error.value) == (
        "--metrics rise_deletio: no such metric (did you mean RISE_deletion?); there are POS, NEG, "
        "RISE_deletion, all"
    )
    assert did_you_mean("something else", KNOWN) == ""
    with pytest.raises(UserError, match="--metrics names no metric; there are POS"):
        choose_names("--metrics", "metric", " ,", KNOWN)


def test_seeds_depend_on_the_text_alone_and_fill_their_range():
    """SHA-256 of "abc" begins ba7816bf8f01cfea (FIPS 180-2)."""
    assert seed_of("abc") == 0xBA7816BF8F01CFEA
    seeds = np.array([seed_of(str(i)) for i in range(500)], dtype=np.uint64)
    assert len(set(seeds.tolist())) == 500 and 0.4 < (seeds / 2.0**64).mean() < 0.6
