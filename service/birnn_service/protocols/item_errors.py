"""Sequences that cannot be encoded, where a protocol has one message for all of them."""

from collections.abc import Sequence

from birnn_bundle.errors import ItemError

# Most sequences that a message names.
LISTED_ERRORS = 3


def listed(errors: Sequence[ItemError], item: str = "{}") -> str:
    """The first errors, each behind the position of its sequence as `item` writes it, and how many more there are."""
    first = "; ".join(f"{item.format(error.index)}: {error.reason}" for error in errors[:LISTED_ERRORS])
    more = f"; and {len(errors) - LISTED_ERRORS} more" if len(errors) > LISTED_ERRORS else ""
    return first + more
