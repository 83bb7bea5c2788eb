"""The header `traceparent` of W3C's Trace Context: which trace a call is part of."""

import re
from typing import NamedTuple

_HEADER = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


class Parent(NamedTuple):
    """The span of the caller, as 32 and 16 hexadecimal digits, and whether its trace is recorded."""

    trace: str
    span: str
    sampled: bool


def read_traceparent(header: str) -> Parent | None:
    """The caller's span.

    Args:
        header: The header's value; empty if there is none. One that is not valid counts as none, as the standard says.
    """
    if not header or (found := _HEADER.fullmatch(header)) is None:
        return None
    return Parent(found[1], found[2], bool(int(found[3], 16) & _SAMPLED))


def sampled_trace(header: str) -> str:
    """The trace that a call is part of; empty where it is part of none, or of one that is not recorded."""
    parent = read_traceparent(header)
    return parent.trace if parent is not None and parent.sampled else ""
