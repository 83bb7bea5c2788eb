"""What became of the calls of one attack, and the table of all attacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from threading import Lock

# What happened in this run, in order; printed at its end.
ATTACKS: list["Outcomes"] = []


@dataclass
class Outcomes:
    """Counts of one attack's calls; every call sent ends in exactly one of the other columns.

    Attributes:
        attack: What was done, in a few words.
        sent: Calls that were made.
        answered: Calls that got the right answer.
        refused: Calls that got the error they should get.
        lost: Calls that failed although they should have been answered.
        wrong: Calls that got a wrong answer.
        hung: Calls that got none in time.
        note: Anything else worth a column: the memory's peak, the slowest probe.
    """

    attack: str
    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    wrong: int = 0
    hung: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        self._lock = Lock()

    def count(self, outcome: str) -> None:
        """Count one call that ended, from any thread: `answered`, `refused`, `lost`, `wrong` or `hung`."""
        with self._lock:
            self.sent += 1
            setattr(self, outcome, getattr(self, outcome) + 1)

    def assert_unharmed(self) -> None:
        """Nothing was lost, wrong or without an answer, and something was sent."""
        assert self.sent > 0, self
        assert (self.lost, self.wrong, self.hung) == (0, 0, 0), self
        assert self.sent == self.answered + self.refused, self


@contextmanager
def attack(name: str) -> Iterator[Outcomes]:
    """Count the calls of an attack; they appear in the table even if the attack's test fails."""
    outcomes = Outcomes(name)
    ATTACKS.append(outcomes)
    yield outcomes


def table() -> str:
    """All attacks of this run, as a Markdown table."""
    names = [field.name for field in fields(Outcomes)]
    rows = [names, ["---", *["---:"] * (len(names) - 2), "---"]]
    rows += [[str(getattr(outcomes, name)) for name in names] for outcomes in ATTACKS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
