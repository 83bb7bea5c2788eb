"""Numbers in text: as outsiders spell them, in ASCII digits, and as messages do.

`int` and `str.isdecimal` accept the digits of every script, and `int` signs, spaces and underscores as well.
"""

import re

# The largest version of an encoder: nine digits, which every integer of every protocol holds.
MOST_VERSION = 999_999_999
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def is_number(text: str) -> bool:
    """Whether `text` is a number in ASCII digits, and nothing else."""
    return text.isascii() and text.isdecimal()


def read_version(text: str) -> int | None:
    """The version that `text` spells, from 1 to 999999999; None where it spells none.

    One version has one spelling: `01` is another folder than `1`, and none of a version.
    """
    return int(text) if _VERSION.fullmatch(text) else None


def counted(number: int, noun: str) -> str:
    """A number and what it counts: 1 line, 1,234 lines."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
