"""How far a job is, how fast, and until when: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

import click
from tqdm import tqdm

LINE_SECONDS = 30.0


class Progress:
    """Counts the records that are done, on standard error.

    Args:
        done: Records that were done before.
        total: All records.
        clock: Seconds since some point in time.
    """

    def __init__(self, done: int, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._done = self._before = done
        self._total = total
        self._clock = clock
        self._started = self._told = clock()
        # None: shown on terminals only.
        self._bar = tqdm(
            total=total, initial=done, unit=" sequences", unit_scale=True, disable=None, file=sys.stderr, smoothing=0.05
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def rate(self) -> float:
        """Records a second, since the start."""
        return (self._done - self._before) / max(1e-9, self._clock() - self._started)

    def add(self, records: int) -> None:
        """Some more are done."""
        self._done += records
        self._bar.update(records)
        now = self._clock()
        if self._bar.disable and now - self._told >= LINE_SECONDS:
            self._told = now
            left = duration((self._total - self._done) / self.rate)
            click.echo(
                f"{self._done:,} of {self._total:,} sequences ({100 * self._done / self._total:.1f} %), "
                f"{self.rate:,.0f}/s, {left} left",
                err=True,
            )


def duration(seconds: float) -> str:
    """A time as people read it: 1:02:03."""
    return str(timedelta(seconds=round(seconds)))
