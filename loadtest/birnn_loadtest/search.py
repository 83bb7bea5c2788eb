"""The search for the highest rate at which a server keeps its objectives."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from birnn_loadtest.verdict import Verdict

CONFIRMATIONS = 5


class Step(Protocol):
    """A step that has run."""

    @property
    def rate(self) -> float:
        """Calls per second."""

    @property
    def verdict(self) -> Verdict:
        """What it says."""


@dataclass(slots=True)
class Capacity:
    """What a search found.

    Attributes:
        rate: The highest rate that was shown to hold and was confirmed, in calls per second; None where there is none.
        confirmed: Whether a run of its own confirmed it.
        beyond: The lowest rate that was tried and not shown to hold; None where there is none.
        limit: What ended the search at `beyond`: "server", "generator" or "maximum".
        words: The result in words.
    """

    rate: float | None = None
    confirmed: bool = False
    beyond: float | None = None
    limit: str = "server"
    words: str = ""


@dataclass(slots=True)
class Search:
    """Doubles or halves the rate until it has one that holds and one that does not, and then halves what is between.

    The rate that it ends at is confirmed by a run of its own, with other calls and twice as long: among many steps some
    hold by luck. One that is not confirmed is lowered by the resolution and confirmed again.

    Attributes:
        measure: Runs a step: at a rate, with a seed, and whether it is to confirm.
        start: Rate of the first step.
        resolution: Share by which two rates must differ to be told apart.
        lowest: No step has a lower rate.
        maximum: No step has a higher rate; None for no limit.
    """

    measure: Callable[[float, int, bool], Step]
    start: float
    resolution: float
    lowest: float = 0.1
    maximum: float | None = None
    _seed: int = field(default=0, init=False)

    def run(self) -> Capacity:
        """Search to the end."""
        holds: float | None = None
        beyond: Step | None = None
        rate = min(self.start, self.maximum or math.inf)
        while True:
            step = self._step(rate, confirm=False)
            if step.verdict.word == "holds":
                holds = rate
            else:
                beyond = step
            if holds is not None and holds == self.maximum:
                return self._confirmed(holds, None)
            if holds is not None and beyond is not None:
                if beyond.rate <= holds * (1 + self.resolution):
                    return self._confirmed(holds, beyond)
                rate = math.sqrt(holds * beyond.rate)
            elif holds is not None:
                rate = min(2 * holds, self.maximum or math.inf)
            elif beyond is not None and beyond.rate / 2 >= self.lowest:
                rate = beyond.rate / 2
            else:
                assert beyond is not None
                return _nothing(beyond)

    def _confirmed(self, rate: float, beyond: Step | None) -> Capacity:
        for _ in range(CONFIRMATIONS):
            step = self._step(rate, confirm=True)
            if step.verdict.word == "holds":
                return _capacity(rate, beyond, self.maximum)
            beyond, rate = step, rate / (1 + self.resolution)
        assert beyond is not None
        return Capacity(
            None,
            False,
            beyond.rate,
            "generator" if beyond.verdict.word == "generator" else "server",
            f"no rate was confirmed in {CONFIRMATIONS} runs, the lowest at {beyond.rate:.4g} calls/s: "
            f"{beyond.verdict.reason}",
        )

    def _step(self, rate: float, confirm: bool) -> Step:
        self._seed += 1
        return self.measure(rate, self._seed, confirm)


def _capacity(rate: float, beyond: Step | None, maximum: float | None) -> Capacity:
    words = f"{rate:.4g} calls/s"
    if beyond is None:
        return Capacity(rate, True, None, "maximum", f"at least {words}, the highest rate tried (--max-rate)")
    if beyond.verdict.word == "generator":
        return Capacity(
            rate, True, beyond.rate, "generator",
            f"at least {words}: at {beyond.rate:.4g} calls/s the generator was the limit, not the server",
        )  # fmt: skip
    how = "fails" if beyond.verdict.word == "fails" else "is not shown to hold"
    return Capacity(rate, True, beyond.rate, "server", f"{words}; {beyond.rate:.4g} calls/s {how}")


def _nothing(beyond: Step) -> Capacity:
    limit = "generator" if beyond.verdict.word == "generator" else "server"
    return Capacity(
        None, False, beyond.rate, limit, f"not even {beyond.rate:.3g} calls/s hold: {beyond.verdict.reason}"
    )
