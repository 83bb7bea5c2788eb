"""What was found out about a machine."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

# As in `birnn_service.engine.engine`, which may not be importable here.
Device = Literal["auto", "cpu", "cuda"]
Status = Literal["ok", "note", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        status: `ok`; `note`, which keeps nothing from being served; or `broken`, with which nothing can be served.
        text: What was found.
        cure: What to do about it, with the exact command where there is one.
    """

    name: str
    status: Status
    text: str
    cure: str = ""


Check = Callable[[], Iterable[Finding]]


def found_by(name: str, check: Check) -> Iterator[Finding]:
    """The findings of a check; one that fails is a finding, too."""
    try:
        yield from check()
    except Exception as error:  # a report of a broken machine must not break
        yield Finding(name, "note", f"cannot be looked at: {type(error).__name__}: {error}")
