"""The search against servers whose capacity is known."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn_loadtest.arrivals import Process, Rate
from birnn_loadtest.objectives import Objective
from birnn_loadtest.recorder import NOT_SENT_LATE, Recorder, Recording
from birnn_loadtest.schedule import Schedule
from birnn_loadtest.search import CONFIRMATIONS, Search
from birnn_loadtest.verdict import Verdict, Word, lateness, verdict
from tests.loadtest.virtual_time import ONE, Queue, recorded

RESOLUTION = 0.05


@dataclass
class Step:
    rate: float
    verdict: Verdict


def step(rate: float, word: Word) -> Step:
    return Step(rate, Verdict(word, "because", ()))


@given(start=st.floats(0.5, 1e5), capacity=st.floats(1, 1e5))
def test_it_ends_within_the_resolution_of_the_capacity(start: float, capacity: float) -> None:
    steps: list[tuple[float, bool]] = []

    def measure(rate: float, seed: int, confirm: bool) -> Step:
        steps.append((rate, confirm))
        return step(rate, "holds" if rate <= capacity else "fails")

    found = Search(measure, start, RESOLUTION).run()
    assert found.rate is not None
    assert found.beyond is not None
    assert found.rate <= capacity < found.beyond <= found.rate * (1 + RESOLUTION) * (1 + 1e-9)
    assert found.confirmed
    assert found.limit == "server"
    assert steps[-1] == (found.rate, True)
    assert len(steps) < 40


def test_every_step_has_other_calls() -> None:
    seeds: list[int] = []

    def measure(rate: float, seed: int, confirm: bool) -> Step:
        seeds.append(seed)
        return step(rate, "holds" if rate <= 100 else "fails")

    Search(measure, 10, RESOLUTION).run()
    assert len(set(seeds)) == len(seeds)


def test_where_the_generator_is_the_limit_the_server_may_bear_more() -> None:
    found = Search(
        lambda rate, seed, confirm: step(rate, "holds" if rate <= 100 else "generator"), 10, RESOLUTION
    ).run()
    assert found.limit == "generator"
    assert "at least" in found.words
    assert "the generator was the limit" in found.words


def test_a_step_that_the_generator_spoils_never_counts_as_capacity() -> None:
    found = Search(lambda rate, seed, confirm: step(rate, "generator"), 10, RESOLUTION).run()
    assert found.rate is None
    assert found.limit == "generator"


def test_the_highest_rate_allowed_is_tried_and_confirmed() -> None:
    found = Search(lambda rate, seed, confirm: step(rate, "holds"), 10, RESOLUTION, maximum=300).run()
    assert (found.rate, found.confirmed, found.limit) == (300, True, "maximum")


def test_a_rate_that_held_by_luck_is_lowered_until_one_is_confirmed() -> None:
    def measure(rate: float, seed: int, confirm: bool) -> Step:
        return step(rate, "holds" if rate <= (90 if confirm else 100) else "unclear")

    found = Search(measure, 10, RESOLUTION).run()
    assert found.rate is not None
    assert 80 < found.rate <= 90
    assert "is not shown to hold" in found.words


def test_it_gives_up_where_nothing_is_confirmed() -> None:
    confirming = 0

    def measure(rate: float, seed: int, confirm: bool) -> Step:
        nonlocal confirming
        confirming += confirm
        return step(rate, "holds" if rate <= 100 and not confirm else "fails")

    found = Search(measure, 10, RESOLUTION).run()
    assert (found.rate, found.confirmed, confirming) == (None, False, CONFIRMATIONS)


def test_it_ends_at_the_lowest_rate() -> None:
    rates = []

    def measure(rate: float, seed: int, confirm: bool) -> Step:
        rates.append(rate)
        return step(rate, "fails")

    found = Search(measure, 10, RESOLUTION, lowest=3).run()
    assert rates == [10, 5]
    assert "not even 5 calls/s hold: because" in found.words


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_capacity_of_a_queue_is_the_one_that_theory_says(seed: int) -> None:
    """M/M/1: the time in the system is exponential with rate mu - lambda, so p99 = ln(100) / (mu - lambda)."""
    service = np.random.default_rng(seed).exponential(0.001, 100_000).tolist()
    limit = 0.020
    expected = 1000 - math.log(100) / limit
    objectives = [Objective("p99", limit), Objective("errors", 0.01)]

    @dataclass
    class Measured:
        rate: float
        verdict: Verdict

    def measure(rate: float, number: int, confirm: bool) -> Measured:
        schedule = Schedule(Process(Rate(rate, rate)), ONE, 1, 40 if confirm else 20, 1000 * seed + number)
        return Measured(rate, verdict(recorded(schedule, Queue(service)), objectives, 0.95))

    found = Search(measure, 100, RESOLUTION).run()
    assert found.confirmed
    assert found.rate is not None
    # Never above what the queue bears, but for the confidence's luck, and not far below.
    assert 0.8 * expected <= found.rate <= 1.03 * expected


OBJECTIVES = [Objective("p99", 0.02), Objective("errors", 0.01)]


def run(count: int, latency: float, slow: int = 0, lag: float = 0.0, failed: int = 0) -> Recording:
    recorder = Recorder(0, 20)
    for number in range(count):
        due = 20 * number / count
        took = 1.0 if number % max(1, count // max(slow, 1)) == 0 and slow else latency
        code = "UNAVAILABLE" if failed and number % (count // failed) == 0 else "OK"
        recorder.record("a", due, due + lag, due + lag + took, code, 1)
    return recorder.finished(0.9)


@pytest.mark.parametrize(
    ("recording", "word"),
    [
        (run(10_000, 0.005), "holds"),
        (run(10_000, 0.005, slow=500), "fails"),
        (run(10_000, 0.030), "fails"),
        (run(10_000, 0.005, slow=100), "unclear"),
        (run(200, 0.005), "unclear"),
        (run(10_000, 0.005, failed=500), "fails"),
        (run(10_000, 0.005, lag=0.010), "generator"),
        (run(10_000, 0.015, lag=0.010), "generator"),
        # Too slow even with all that the generator added subtracted.
        (run(10_000, 0.200, lag=0.010), "fails"),
        (run(0, 0.1), "unclear"),
    ],
)
def test_verdicts(recording: Recording, word: Word) -> None:
    assert verdict(recording, OBJECTIVES, 0.95).word == word


def test_the_generator_says_how_late_it_was_and_why() -> None:
    text = lateness(run(1000, 0.005, lag=0.010))
    assert text is not None
    assert "p99 of its lag is 10ms" in text
    assert "90% of a core" in text
    assert "--processes" in text
    assert lateness(run(1000, 0.005, lag=0.001)) is None
    recorder = Recorder(0, 10)
    recorder.record("a", 1.0, 9.0, 9.0, NOT_SENT_LATE, 1)
    assert "1 calls were not sent" in (lateness(recorder.finished(0)) or "")


@settings(max_examples=30)
@given(slow=st.integers(0, 300))
def test_what_holds_does_not_fail(slow: int) -> None:
    found = verdict(run(6000, 0.005, slow=slow), OBJECTIVES, 0.95)
    share = found.bounds[0].missed
    if found.word == "holds":
        assert share < 0.01
    if found.word == "fails":
        assert share > 0.01
