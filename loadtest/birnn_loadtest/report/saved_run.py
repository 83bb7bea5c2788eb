"""A result of `birnn loadtest --out`, read back."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birnn_loadtest.histogram import Histogram
from birnn_loadtest.recorder import Interval
from birnn_loadtest.result import SCHEMA_VERSION


class SavedRunError(Exception):
    """A file is not what `birnn loadtest --out` writes; says why."""


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A result.

    Attributes:
        name: What it is called beside others.
        data: As in the file: see `Result.to_json`.
    """

    name: str
    data: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "SavedRun":
        """From a file, named after it.

        Raises:
            SavedRunError: It is no such file.
            OSError: It cannot be read.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise SavedRunError(f"{path} is not JSON: {error}") from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            found = "has none" if version is None else f"has {version!r}"
            raise SavedRunError(
                f"{path} is not a result that this birnn reads: it {found} for schema_version, which must be "
                f"{SCHEMA_VERSION}; write it with `birnn loadtest --out`"
            )
        return cls(path.stem, data)

    @property
    def run(self) -> dict[str, Any]:
        """What was measured."""
        found: dict[str, Any] = self.data["run"]
        return found

    @property
    def latency(self) -> Histogram:
        """From due to answered, of calls that ended OK."""
        return histogram(self.run["latency"])

    def windows(self, most: int) -> list[Interval]:
        """Neighboring intervals together, in at most `most` windows of the same length; the last may be shorter."""
        intervals: Sequence[dict[str, Any]] = self.run["intervals"]
        if not intervals:
            return []
        # One without calls is left out of the file.
        numbers = [round(one["start"] / self.run["interval"]) for one in intervals]
        size = -(-(numbers[-1] + 1) // most)
        windows = [Interval() for _ in range(numbers[-1] // size + 1)]
        for number, one in zip(numbers, intervals, strict=True):
            latency = Histogram(one["latency"])
            windows[number // size].add(Interval(one["calls"], one["failed"], one["sequences"], latency))
        return windows

    def window_seconds(self, most: int) -> float:
        """How long such a window is."""
        last = max((round(one["start"] / self.run["interval"]) for one in self.run["intervals"]), default=0)
        return float(self.run["interval"]) * -(-(last + 1) // most)


def histogram(spread: dict[str, Any] | None) -> Histogram:
    """The distribution in a JSON figure; an empty one for none."""
    return Histogram(None if spread is None else spread["histogram"])


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what a damaged result leads to into an error that says so.

    Raises:
        SavedRunError: Names what is missing or wrong.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise SavedRunError(f"{name} is not a whole result of `birnn loadtest --out`: {what}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")
