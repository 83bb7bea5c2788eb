"""Text from outside, made safe to print."""


def printable(text: str) -> str:
    """The text with everything that a terminal might obey rather than show written as an escape: \\x1b, \\u202e.

    Line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def counted(number: int, noun: str) -> str:
    """A number and what it counts: 1 line, 1,234 lines."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
