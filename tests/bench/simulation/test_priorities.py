"""What priorities do, in simulated time: for whom, at whose cost, and how long LOW waits at most."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.simulation.device import CPU, GPU, PACKED, Device, Outcome, simulate
from bench.simulation.load import Fixed, LogNormal, Request, make_load
from bench.simulation.neighbors import BACKLOG
from bench.simulation.policies import Ours
from birnn_service.queueing import lane, queue
from birnn_service.queueing.caller_flow import LOW_WEIGHT
from birnn_service.queueing.priority import Priority

LENGTHS = LogNormal()
DEVICES = st.builds(
    lambda device, slots, rows: replace(device, slots=slots, max_rows=rows),
    st.sampled_from([CPU, GPU, PACKED]),
    st.integers(1, 3),
    st.sampled_from([1, 4, 8]),
)
CALLS = st.lists(
    st.tuples(st.floats(0, 0.01), st.sampled_from("aabc"), st.sampled_from([Priority.HIGH, Priority.NORMAL])),
    min_size=20,
    max_size=60,
)


def run(requests: Sequence[Request], device: Device, *, lanes: int = 1, backlog: float = np.inf) -> Outcome:
    """Simulate requests, which need not be in order."""
    ordered = sorted(requests, key=lambda request: request.arrival)
    return simulate(Ours(device, lanes=lanes, max_backlog_seconds=backlog), ordered, device)


def waits(outcome: Outcome, caller: str, priority: Priority) -> NDArray[np.float64]:
    """Seconds from arrival to done of the calls of a caller and priority; infinite for those refused."""
    pairs = zip(outcome.requests, outcome.finished, strict=True)
    chosen = [end - one.arrival for one, end in pairs if (one.caller, one.priority) == (caller, priority)]
    return np.array(chosen)


def flood(device: Device, callers: Sequence[str], seconds: float, size: int = 8, times: float = 1.5) -> list[Request]:
    """NORMAL calls of `callers` in turn, so many times what the device can do."""
    rate = times * device.capacity(LENGTHS) / size
    calls = make_load(rate, int(rate * seconds), Fixed(size), LENGTHS, seed=1)
    return [replace(call, caller=callers[number % len(callers)]) for number, call in enumerate(calls)]


@given(CALLS, DEVICES, st.integers(1, 2))
@settings(deadline=None)
def test_high_changes_nothing_for_other_callers(
    calls: list[tuple[float, str, Priority]], device: Device, lanes: int
) -> None:
    """Whatever is HIGH, the same batches run at the same times with as many rows of each caller."""
    requests = [Request(arrival, np.array([40]), None, caller, priority) for arrival, caller, priority in calls]
    with_priorities = run(requests, device, lanes=lanes)
    without = run([replace(request, priority=Priority.NORMAL) for request in requests], device, lanes=lanes)

    def seen(outcome: Outcome) -> list[tuple[float, float, Counter[str]]]:
        return [
            (batch.start, batch.end, Counter(outcome.requests[number].caller for number, _ in batch.rows))
            for batch in outcome.batches
        ]

    assert seen(with_priorities) == seen(without)


@pytest.mark.parametrize("device", [CPU, PACKED])
def test_high_passes_the_backlog_of_its_own_caller_even_where_that_is_full(device: Device) -> None:
    normal = flood(device, ["a"], 0.6)
    high = [Request(time, LENGTHS(np.random.default_rng(2), 1), None, "a", Priority.HIGH) for time in (0.4, 0.45, 0.5)]
    outcome = run([*normal, *high], device, backlog=0.1)
    longest = max(batch.end - batch.start for batch in outcome.batches)
    assert waits(outcome, "a", Priority.HIGH).max() <= 2 * longest + 0.001
    assert len(outcome.late) > 0
    late = [end - one.arrival for one, end in zip(outcome.requests, outcome.finished, strict=True) if one.arrival > 0.3]
    assert np.median(late) > 0.09


def longest_wait(call: Request, others: float, longest: float, device: Device) -> float:
    """How long a LOW call of an idle LOW flow takes at most, beside flows that never end; in seconds.

    Let its rows cost W slot-seconds at most, each run alone. Start-time fair queueing serves no flow whose start tag is
    more than a burst B beyond the least one. The tag of the call's last row is at most L + W / w beyond the virtual
    time at its arrival, where L is the lead of others and w the weight of LOW. So before it is served, another flow of
    weight v gets at most v (L + W / w + B) and one batch more. Besides there is the batch under way.

    Args:
        call: The call.
        others: How many flows of small NORMAL requests, of weight 1, there are.
        longest: Seconds of the longest batch.
        device: What runs it.
    """
    work = sum(device.slots * device.cost.seconds(1, length) for length in call.lengths.tolist())
    batches = longest * device.slots
    return longest + (work + others * (queue.LOW_LEAD + work / LOW_WEIGHT + 2 * batches)) / device.slots


@pytest.mark.parametrize(("others", "rows", "lead"), [(0, 16, 1.0), (3, 1, 1.0), (7, 4, 0.1)])
@pytest.mark.parametrize("device", [replace(PACKED, wide_cost=None), CPU])
def test_low_is_answered_in_a_bounded_time_however_much_normal_is_sent(
    monkeypatch: pytest.MonkeyPatch, device: Device, others: int, rows: int, lead: float
) -> None:
    monkeypatch.setattr(queue, "LOW_LEAD", lead)
    callers = ["a", *(f"other-{number}" for number in range(others))]
    low = Request(0.3, LENGTHS(np.random.default_rng(3), rows), None, "a", Priority.LOW)
    outcome = run([*flood(device, callers, 3.0), low], device, backlog=BACKLOG)
    longest = max(batch.end - batch.start for batch in outcome.batches)
    (wait,) = waits(outcome, "a", Priority.LOW)
    assert wait <= longest_wait(low, others + 1, longest, device)
    assert low.arrival + wait < outcome.requests[-1].arrival, "NORMAL calls came all the time"


def test_beside_a_caller_that_fills_the_device_low_gets_its_weight() -> None:
    normal = flood(PACKED, ["a"], 4.0)
    low = [Request(0.2, LENGTHS(np.random.default_rng(number), 1), None, "b", Priority.LOW) for number in range(1000)]
    outcome = run([*normal, *low], PACKED, backlog=BACKLOG)
    tokens = Counter[Priority]()
    for batch in outcome.batches:
        if 0.5 < batch.start < 4.0:
            for (number, _), length in zip(batch.rows, batch.lengths.tolist(), strict=True):
                tokens[outcome.requests[number].priority] += length
    assert tokens[Priority.LOW] / tokens.total() == pytest.approx(LOW_WEIGHT / (1 + LOW_WEIGHT), rel=0.2)


def test_calls_wait_less_beside_low_ones_of_another_caller_than_beside_normal_ones() -> None:
    rate = 0.3 * PACKED.capacity(LENGTHS)
    single = [replace(one, caller="single") for one in make_load(rate, int(rate), Fixed(1), LENGTHS, seed=1)]
    means = {}
    for priority in (Priority.NORMAL, Priority.LOW):
        neighbors = [replace(call, priority=priority) for call in flood(PACKED, ["neighbor"], 1.0)]
        outcome = run([*single, *neighbors], PACKED, backlog=BACKLOG)
        means[priority] = waits(outcome, "single", Priority.NORMAL).mean()
    assert means[Priority.LOW] < 0.8 * means[Priority.NORMAL]


def test_low_of_a_new_address_waits_for_newer_ones_only_until_it_has_aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new address is at its turn at once, and NORMAL ones come first: nothing but its age helps LOW there."""
    monkeypatch.setattr(lane, "AGEING", 0.5)
    calls = [replace(call, caller=f"new-{number}") for number, call in enumerate(flood(PACKED, ["a"], 2.0))]
    low = Request(0.3, np.array([40]), None, "new", Priority.LOW)
    outcome = run([*calls, low], PACKED, backlog=BACKLOG)
    longest = max(batch.end - batch.start for batch in outcome.batches)
    (wait,) = waits(outcome, "new", Priority.LOW)
    assert 0.5 <= wait <= 0.5 + BACKLOG + 3 * longest
