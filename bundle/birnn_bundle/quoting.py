"""Quoting of text that comes from outside, for messages and logs."""

import re

# Longer texts are cut: a message must not grow with what somebody sent.
MOST_CHARACTERS = 60


def shown(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text` in quotes, what is not printable escaped, cut after `most` characters with its length told."""
    if len(text) <= most:
        return repr(text)
    return f"{text[:most]!r}... ({len(text)} characters)"


def told(name: str) -> str:
    """A name: as it is where that is harmless, else in quotes; it need not even be UTF-8."""
    return name if re.fullmatch(r"[A-Za-z0-9._/-]{1,100}", name) else shown(name)


def one_line(text: str, most: int = 2000) -> str:
    """`text` without quotes on one line: what is not printable escaped, cut after `most` characters."""
    cut = text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in cut)


def without_paths(text: str) -> str:
    """`text` with absolute paths shortened to their last part: callers need not know where this server keeps what."""
    return re.sub(r"""(?<![\w./])/(?:[^\s/:'",;()]+/)*(?=\w)""", "", text)
