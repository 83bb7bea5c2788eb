"""Priorities: how urgent callers say that their requests are."""

from enum import IntEnum


class Priority(IntEnum):
    """How urgent a request is, the most urgent first; the numbers are those of the protocol.

    A caller's priority orders its own requests and takes nothing from other callers. HIGH goes before the caller's
    NORMAL requests of its kind (see `caller_flow.Key`) and is to other callers what NORMAL is. LOW also yields to
    others.
    """

    HIGH = 1
    NORMAL = 2
    LOW = 3
