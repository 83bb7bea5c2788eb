"""The header `traceparent` of W3C's Trace Context, as far as metrics need it."""

import re

_HEADER = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


def sampled_trace(header: str) -> str:
    """The trace that a call is part of; empty where it is part of none, or of one that is not recorded.

    Args:
        header: The header's value; empty if there is none. One that is not valid counts as none, as the standard says.
    """
    if not header or (found := _HEADER.fullmatch(header)) is None or not int(found[2], 16) & _SAMPLED:
        return ""
    return found[1]
