"""Text that comes from outside, made fit for messages, logs and terminals."""

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
    return printable(cut, keep="")


def printable(text: str, keep: str = "\n\t") -> str:
    """The text with everything that a terminal might obey rather than show written as an escape: \\x1b, \\u202e.

    Args:
        text: Any text.
        keep: What else stays as it is; by default line breaks and tabs.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def without_paths(text: str) -> str:
    """`text` with absolute paths shortened to their last part, and URLs to three dots.

    Callers need not know where this server keeps what.
    """
    text = re.sub(r"""\b[a-z][a-z0-9+.-]*://[^\s'"]*[^\s'",.:;()]""", "...", text)
    return re.sub(r"""(?<![\w./])/(?:[^\s/:'",;()]+/)*(?=\w)""", "", text)
