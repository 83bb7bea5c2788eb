"""What can be wrong with a bundle, and with one sequence."""

import enum
from dataclasses import dataclass


class BundleError(Exception):
    """A bundle on disk is missing, damaged, tampered with, or of a schema this version does not know."""


def is_refusal(error: BaseException) -> bool:
    """Whether an exception means that what was read is no good, rather than that this process is to end.

    Libraries written in Rust raise a panic as `PanicException`, which is no `Exception` and has no importable name.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class ItemErrorCode(enum.IntEnum):
    """Why a sequence has no encoding; the numbers are those of birnn.v1 `ItemError.Code`."""

    EMPTY = 1
    NOT_UTF8 = 2
    UNKNOWN_CHARACTERS = 3
    TOO_LONG = 4
    OUT_OF_RANGE = 5
    NOT_FINITE = 6


@dataclass(frozen=True, slots=True)
class ItemError:
    """One sequence that cannot be encoded.

    Attributes:
        index: Position of the sequence in its request.
        code: What kind of error it is.
        reason: What is wrong, the limit, and what to do.
    """

    index: int
    code: ItemErrorCode
    reason: str
