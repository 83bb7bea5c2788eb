"""Invariants of the scheduler, and how it does beside other servers' policies, on simulated loads."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulation.device import CPU, GPU, PACKED, Device, Launch, Outcome, simulate
from bench.simulation.load import Fixed, LogNormal, Request, make_load, with_patience
from bench.simulation.policies import Fifo, Ours
from birnn_service.queueing import queue
from birnn_service.queueing.caller_flow import HEALTH, OTHERS
from birnn_service.queueing.priority import Priority

LENGTHS = LogNormal()

REQUESTS = st.lists(
    st.builds(
        lambda arrival, rows, patience, caller, priority: Request(
            arrival, np.array(rows), arrival + patience if patience else None, caller, priority
        ),
        st.floats(0, 0.05),
        st.lists(st.integers(1, 300), min_size=1, max_size=40),
        st.none() | st.floats(0.02, 0.2),
        st.sampled_from(["a", "a", "b", "c", HEALTH]),
        st.sampled_from(Priority),
    ),
    min_size=1,
    max_size=25,
).map(lambda requests: sorted(requests, key=lambda request: request.arrival))
DEVICES = st.builds(
    lambda device, slots, rows: replace(device, slots=slots, max_rows=rows),
    st.sampled_from([CPU, GPU, PACKED, replace(PACKED, wide_cost=None)]),
    st.integers(1, 4),
    st.sampled_from([1, 8, 32]),
)
LANES = st.integers(1, 3)


class Watched(Ours):
    """The real scheduler, watched at every decision."""

    def __init__(self, device: Device, lanes: int) -> None:
        super().__init__(device, lanes=lanes)

    def fill(self, idle: int, now: float) -> tuple[list[Launch], list[int]]:
        turn = self.scheduler.next_turn(now)
        first = turn and turn[1].flows[0].rows
        launches, late = super().fill(idle, now)
        if first and idle:
            chosen = {row for launch in launches for row in launch.rows}
            number = int(first.submission[0])
            assert (number, int(first.row[0])) in chosen or number in late, "passed over"
        left = idle - sum(launch.slots for launch in launches)
        assert left == 0 or not any(len(lane.queue) for lane in self.lanes), "a slot idles while something waits"
        for launch in launches:
            assert len(launch.rows) <= self.scheduler.lanes[0].engine.info.max_rows
            assert len({number % len(self.lanes) for number, _ in launch.rows}) == 1, "a batch is of one lane"
        return launches, late


def run(requests: list[Request], device: Device = CPU, lanes: int = 1) -> Outcome:
    return simulate(Watched(device, lanes), requests, device)


@given(REQUESTS, DEVICES, LANES)
@settings(deadline=None)
def test_nothing_is_lost_nothing_runs_twice_and_everything_has_an_end(
    requests: list[Request], device: Device, lanes: int
) -> None:
    outcome = run(requests, device, lanes)
    ran = [row for batch in outcome.batches for row in batch.rows]
    assert len(set(ran)) == len(ran)
    for number, request in enumerate(requests):
        done = np.isfinite(outcome.finished[number])
        assert done != (number in outcome.late)
        if done:
            assert {(number, row) for row in range(len(request.lengths))} <= set(ran)


@given(REQUESTS, DEVICES, LANES)
@settings(deadline=None)
def test_no_deadline_is_missed_knowingly(requests: list[Request], device: Device, lanes: int) -> None:
    for batch in run(requests, device, lanes).batches:
        for number, _ in batch.rows:
            deadline = requests[number].deadline
            assert deadline is None or batch.end <= deadline + 1e-9


@given(REQUESTS, DEVICES, LANES)
@settings(deadline=None)
def test_no_slot_idles_while_something_waits_and_whose_turn_it_is_is_never_passed_over(
    requests: list[Request], device: Device, lanes: int
) -> None:
    """See `Watched`."""
    run([replace(request, deadline=None) for request in requests], device, lanes)


@given(REQUESTS, DEVICES)
@settings(deadline=None)
def test_no_request_waits_for_more_batches_than_there_are_rows_of_its_caller_before_it(
    requests: list[Request], device: Device
) -> None:
    """Ranks are points in time, so from its rank on nothing new comes before a row."""
    patient = [Request(request.arrival, request.lengths) for request in requests]
    outcome = run(patient, device)
    engine = Watched(device, 1)
    for number, request in enumerate(patient):
        # The rank of its last row, as it comes into an empty lane: what comes after that time is behind it.
        rank = float(engine.lanes[0].arrange(number, request.lengths, np.inf, request.arrival).rank[-1])
        before = [other for other, its in enumerate(patient) if its.arrival <= max(rank, request.arrival)]
        rows = sum(len(patient[other].lengths) for other in before)
        started = [batch for batch in outcome.batches if request.arrival < batch.start < outcome.finished[number]]
        assert len(started) <= rows + device.slots


def test_a_stream_of_small_requests_does_not_starve_a_large_one_nor_the_other_way_round() -> None:
    rate = 0.7 * CPU.capacity(LENGTHS)
    small = make_load(rate, int(4.0 * rate), Fixed(1), LENGTHS, seed=1)
    large = Request(0.5, LENGTHS(np.random.default_rng(2), 2_000))
    requests = sorted([*small, large], key=lambda request: request.arrival)
    outcome = simulate(Ours(CPU), requests, CPU)
    number = requests.index(large)
    alone = simulate(Ours(CPU), [large], CPU)
    others = np.delete(np.array(outcome.finished) - [request.arrival for request in requests], number)
    # Less than 0.3 of the machine is left for the large one, which the small ones do not wait behind.
    assert outcome.finished[number] - large.arrival < 8 * alone.latencies[0]
    assert np.quantile(others, 0.99) < 0.2 * alone.latencies[0]


def test_a_large_request_with_a_deadline_is_not_passed_until_it_misses_it() -> None:
    rate = 0.7 * CPU.capacity(LENGTHS)
    small = make_load(rate, int(3.0 * rate), Fixed(1), LENGTHS, seed=1)
    rows = LENGTHS(np.random.default_rng(2), 600)
    alone = simulate(Ours(CPU), [Request(0.0, rows)], CPU).latencies[0]
    large = Request(0.5, rows, 0.5 + 5 * alone)
    requests = sorted([*small, large], key=lambda request: request.arrival)
    outcome = simulate(Ours(CPU), requests, CPU)
    number = requests.index(large)
    assert number not in outcome.late
    relaxed = simulate(Ours(CPU), [replace(request, deadline=None) for request in requests], CPU)
    assert outcome.finished[number] < relaxed.finished[number]


@pytest.mark.parametrize("patience", [0.1, 0.5])
@pytest.mark.parametrize("load", [1.2, 2.0, 4.0])
def test_under_overload_almost_all_computing_is_for_callers_who_get_their_answer(load: float, patience: float) -> None:
    slower = replace(CPU, cost=CPU.cost.scaled(1.2))
    possible = slower.capacity(LENGTHS)
    rate = load * possible / 8
    requests = with_patience(make_load(rate, int(3.0 * rate), Fixed(8), LENGTHS, seed=3), patience)
    outcome = simulate(Ours(CPU), requests, slower)
    in_time = sum(
        end <= request.deadline
        for request, end in zip(requests, outcome.finished, strict=True)
        if request.deadline is not None
    )
    assert in_time * 8 / requests[-1].arrival > 0.85 * possible


@pytest.mark.parametrize("load", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("rows", [1, 32])
def test_on_cores_it_beats_first_come_first_served_and_a_token_budget(load: float, rows: int) -> None:
    rate = load * CPU.capacity(LENGTHS) / rows
    requests = make_load(rate, 300 if rows > 1 else int(2.0 * rate), Fixed(rows), LENGTHS, seed=3)
    ours = simulate(Ours(CPU), requests, CPU)
    for other in (Fifo(max_rows=32), Fifo(max_rows=512, max_tokens=2048)):
        theirs = simulate(other, requests, CPU)
        assert ours.latencies.mean() < theirs.latencies.mean()
        assert ours.padding < theirs.padding or theirs.padding == 0


def test_at_saturation_on_cores_almost_nothing_is_padding() -> None:
    rate = 1.5 * CPU.capacity(LENGTHS) / 32
    requests = make_load(rate, int(4.0 * rate), Fixed(32), LENGTHS, seed=4)
    assert simulate(Ours(CPU), requests, CPU).padding < 0.04


def test_on_a_gpu_batches_are_few_and_full() -> None:
    rate = 0.5 * GPU.capacity(LENGTHS) / 32
    ours = simulate(Ours(GPU), make_load(rate, int(0.2 * rate), Fixed(32), LENGTHS, seed=5), GPU)
    assert np.mean([len(batch.rows) for batch in ours.batches]) > 100


def test_a_high_request_with_a_deadline_is_admitted_though_its_callers_backlog_would_take_longer() -> None:
    scheduler = Ours(CPU)
    for number in range(800):
        assert scheduler.add(number, Request(0.0, np.array([40])), 0.0)
    hurried = Request(0.1, np.array([40]), 0.2)
    assert not scheduler.add(800, hurried, 0.1)
    assert scheduler.add(801, replace(hurried, priority=Priority.HIGH), 0.1)


def test_where_callers_share_a_flow_none_passes_the_others_by_claiming_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MAX_FLOWS", 2)
    scheduler = Ours(CPU)
    for number in range(4):
        priority = Priority.HIGH if number == 3 else Priority.NORMAL
        assert scheduler.add(number, Request(0.0, np.array([40]), None, f"new-{number}", priority), 0.0)
    (shared,) = (flow for flow in scheduler.lanes[0].queue.flows if flow.key[0] == OTHERS)
    assert shared.rows.submission.tolist() == [1, 2, 3]
