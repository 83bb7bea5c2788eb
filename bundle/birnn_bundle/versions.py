"""Versions of encoders, as text from outside spells them."""

import re

# The largest version: nine digits, which every integer of every protocol holds.
MOST_VERSION = 999_999_999
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def read_version(text: str) -> int | None:
    """The version that `text` spells, from 1 to 999999999; None where it spells none.

    One version has one spelling: ASCII digits without leading zeros, signs, spaces or underscores. `int` accepts all of
    those, and the digits of every script.
    """
    return int(text) if _VERSION.fullmatch(text) else None
