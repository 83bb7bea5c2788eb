"""Invariants of the scheduler, and how it does beside other servers' policies, on simulated loads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batcher.cost import CostModel
from service.errors import DeadlineError, OverloadedError
from tests.service.batcher.simulation import (
    CPU_COST,
    GPU_COST,
    Fifo,
    Ours,
    Outcome,
    Request,
    capacity,
    lengths,
    poisson_load,
    simulate,
)

REQUESTS = st.lists(
    st.builds(
        lambda arrival, rows, patience: Request(arrival, np.array(rows), arrival + patience if patience else None),
        st.floats(0, 0.05),
        st.lists(st.integers(1, 300), min_size=1, max_size=40),
        st.none() | st.floats(0.02, 0.2),
    ),
    min_size=1,
    max_size=25,
).map(lambda requests: sorted(requests, key=lambda request: request.arrival))


class Refusing(Ours):
    """The real scheduler, whose refusals count as dropped."""

    def __init__(self, cost: CostModel, slots: int, max_rows: int) -> None:
        super().__init__(cost, slots, max_rows)
        self.refused: set[int] = set()

    def add(self, work: int, request: Request, now: float) -> None:
        try:
            super().add(work, request, now)
        except (DeadlineError, OverloadedError):
            self.refused.add(work)


def run(requests: list[Request], slots: int = 2) -> Outcome:
    policy = Refusing(CPU_COST, slots, 32)
    outcome = simulate(policy, requests, CPU_COST, slots)
    outcome.late |= policy.refused
    return outcome


@given(REQUESTS, st.integers(1, 4))
@settings(deadline=None)
def test_nothing_is_lost_nothing_runs_twice_and_everything_has_an_end(requests: list[Request], slots: int) -> None:
    outcome = run(requests, slots)
    ran = [row for batch in outcome.batches for row in batch.rows]
    assert len(set(ran)) == len(ran)
    for work, request in enumerate(requests):
        done = np.isfinite(outcome.finished[work])
        assert done != (work in outcome.late)
        if done:
            assert {(work, row) for row in range(len(request.lengths))} <= set(ran)


@given(REQUESTS, st.integers(1, 4))
@settings(deadline=None)
def test_no_deadline_is_missed_knowingly(requests: list[Request], slots: int) -> None:
    for batch in run(requests, slots).batches:
        for work, _ in batch.rows:
            deadline = requests[work].deadline
            assert deadline is None or batch.end <= deadline + 1e-9


@given(REQUESTS)
@settings(deadline=None)
def test_no_slot_idles_while_something_waits(requests: list[Request]) -> None:
    outcome = run([Request(request.arrival, request.lengths) for request in requests], slots=1)
    busy = 0.0
    for batch in sorted(outcome.batches, key=lambda batch: batch.start):
        ready = min(requests[work].arrival for work, _ in batch.rows)
        assert batch.start <= max(busy, ready) + 1e-9
        busy = batch.end


def test_a_stream_of_small_requests_does_not_starve_a_large_one_nor_the_other_way_round() -> None:
    rate = 0.7 * capacity(CPU_COST, 2, 32)
    small = poisson_load(rate, 4.0, 1, seed=1)
    large = Request(0.5, lengths(np.random.default_rng(2), 2_000))
    requests = sorted([*small, large], key=lambda request: request.arrival)
    outcome = simulate(Ours(CPU_COST, 2, 32), requests, CPU_COST, 2)
    number = requests.index(large)
    alone = simulate(Ours(CPU_COST, 2, 32), [large], CPU_COST, 2)
    others = np.delete(np.array(outcome.finished) - [request.arrival for request in requests], number)
    # Less than 0.3 of the machine is left for the large one, which the small ones do not wait behind.
    assert outcome.finished[number] - large.arrival < 8 * alone.latencies[0]
    assert np.quantile(others, 0.99) < 0.2 * alone.latencies[0]


@pytest.mark.parametrize("patience", [0.1, 0.5])
@pytest.mark.parametrize("load", [1.2, 2.0, 4.0])
def test_under_overload_almost_all_computing_is_for_callers_who_get_their_answer(load: float, patience: float) -> None:
    slower = CPU_COST.scaled(1.2)
    possible = capacity(slower, 2, 32)
    requests = [
        Request(request.arrival, request.lengths, request.arrival + patience)
        for request in poisson_load(load * possible / 8, 3.0, 8, seed=3)
    ]
    policy = Refusing(CPU_COST, 2, 32)
    outcome = simulate(policy, requests, slower, 2)
    in_time = sum(
        end <= request.deadline
        for request, end in zip(requests, outcome.finished, strict=True)
        if request.deadline is not None
    )
    assert in_time * 8 / requests[-1].arrival > 0.85 * possible


@pytest.mark.parametrize("load", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("rows", [1, 32])
def test_on_cores_it_beats_first_come_first_served_and_a_token_budget(load: float, rows: int) -> None:
    rate = load * capacity(CPU_COST, 2, 32) / rows
    requests = poisson_load(rate, 300 / rate if rows > 1 else 2.0, rows, seed=3)
    ours = simulate(Ours(CPU_COST, 2, 32), requests, CPU_COST, 2)
    for other in (Fifo(max_rows=32), Fifo(max_rows=512, max_tokens=2048)):
        theirs = simulate(other, requests, CPU_COST, 2)
        assert ours.latencies.mean() < theirs.latencies.mean()
        assert ours.padding < theirs.padding or theirs.padding == 0


def test_at_saturation_on_cores_almost_nothing_is_padding() -> None:
    requests = poisson_load(1.5 * capacity(CPU_COST, 2, 32) / 32, 4.0, 32, seed=4)
    assert simulate(Ours(CPU_COST, 2, 32), requests, CPU_COST, 2).padding < 0.04


def test_on_a_gpu_batches_are_few_and_full() -> None:
    requests = poisson_load(0.5 * capacity(GPU_COST, 1, 512) / 32, 0.2, 32, seed=5)
    ours = simulate(Ours(GPU_COST, 1, 512, parallel_slots=False), requests, GPU_COST, 1)
    assert np.mean([len(batch.rows) for batch in ours.batches]) > 100
