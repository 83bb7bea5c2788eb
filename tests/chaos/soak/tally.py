"""What became of the calls of a process of callers."""

import json
from collections import Counter
from dataclasses import dataclass, field

NOTES = 20


@dataclass
class Tally:
    """Counts of calls, and of vectors that were compared.

    Attributes:
        calls: By what became of them: answered, refused, lost, wrong or hung.
        kinds: Calls answered, by kind of caller.
        versions: Vectors that are equal to the bit to the recorded ones, by version.
        notes: What was not answered, the first ones.
    """

    calls: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def vectors(self) -> int:
        """Vectors that were compared and are right."""
        return self.versions.total()

    def count(self, outcome: str, note: str) -> None:
        """Count a call that was not answered."""
        self.calls[outcome] += 1
        if len(self.notes) < NOTES:
            self.notes.append(f"{outcome}: {note}")

    def add(self, other: "Tally") -> None:
        """Add what another process has counted."""
        self.calls += other.calls
        self.kinds += other.kinds
        self.versions += other.versions
        self.notes += other.notes

    def write(self) -> str:
        """One line of JSON."""
        return json.dumps({"calls": self.calls, "kinds": self.kinds, "versions": self.versions, "notes": self.notes})

    @classmethod
    def read(cls, line: str) -> "Tally":
        """What `write` wrote."""
        found = json.loads(line)
        return cls(Counter(found["calls"]), Counter(found["kinds"]), Counter(found["versions"]), found["notes"])
