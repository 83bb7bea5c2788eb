"""Quoting of text that comes from outside, for messages and logs."""

# Longer texts are cut: a message must not grow with what somebody sent.
MOST_CHARACTERS = 60


def shown(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text` in quotes, what is not printable escaped, cut after `most` characters with its length told."""
    if len(text) <= most:
        return repr(text)
    return f"{text[:most]!r}... ({len(text)} characters)"
