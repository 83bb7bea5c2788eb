"""Whose rows come first: fairness between callers, and rank within one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulation.device import PACKED
from bench.simulation.policies import SimulatedEngine
from birnn_service.engine.engine import Output
from birnn_service.queueing import queue as module
from birnn_service.queueing.caller_flow import HEALTH, LARGE_WEIGHT, LOW_WEIGHT, OTHERS, SMALL_WEIGHT, CallerFlow
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.lane import AGEING, Lane
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.queue import MAX_FLOWS, Queue
from birnn_service.queueing.waiting import Waiting

ARRIVALS = st.lists(
    st.tuples(
        st.floats(0, 200.0),
        st.integers(1, 8),
        st.just(np.inf) | st.floats(0.1, 100.0),
        st.sampled_from([Priority.HIGH, Priority.NORMAL]),
    ),
    min_size=1,
    max_size=20,
)
COST = CostModel(0.0, 0.0, 1.0, packed=True)
ROWS = 8


def rows(submission: int, count: int, rank: float = 0.0, length: int = 1) -> Waiting:
    return Waiting(
        rank=np.full(count, rank),
        deadline=np.full(count, np.inf),
        submission=np.full(count, submission, dtype=np.int64),
        row=np.arange(count),
        length=np.full(count, length, dtype=np.int64),
    )


def served(queue: Queue, count: int, burst: float = 0.0) -> list[int]:
    """Submissions of the next rows, each a batch of its own that costs its length."""
    order = []
    for _ in range(count):
        queue.time.follow(queue.flows)
        window = queue.turns(COST, ROWS, burst).window(ROWS)
        queue.take(window, np.array([0]), window.rows.length[:1].astype(np.float64))
        order.append(int(window.rows.submission[0]))
    return order


def test_callers_take_turns_and_one_that_comes_later_waits_for_none_of_what_waited_before() -> None:
    queue = Queue()
    queue.add(queue.flow_of("a"), rows(1, 20))
    assert served(queue, 5) == [1] * 5
    queue.add(queue.flow_of("b"), rows(2, 3, rank=1.0))
    assert served(queue, 6) == [2, 1, 2, 1, 2, 1]
    assert served(queue, 4) == [1] * 4
    assert len(queue) == 20 + 3 - 15


def test_idling_earns_no_credit_and_coming_back_clears_no_debt() -> None:
    queue = Queue()
    queue.add(queue.flow_of("a"), rows(1, 30))
    served(queue, 10)
    queue.add(queue.flow_of("b"), rows(2, 1, length=4))
    assert served(queue, 1) == [2]
    queue.add(queue.flow_of("b"), rows(3, 2))
    assert served(queue, 6).count(3) <= 1


def test_within_a_caller_the_rank_decides_and_between_callers_it_does_not() -> None:
    queue = Queue()
    queue.add(queue.flow_of("a"), rows(1, 6, rank=5.0))
    queue.add(queue.flow_of("b"), rows(2, 6, rank=9.0))
    queue.add(queue.flow_of("a"), rows(3, 6, rank=1.0))
    order = served(queue, 12)
    assert order[::2] == [3] * 6
    assert order[1::2] == [2] * 6


@given(ARRIVALS)
def test_the_rows_of_a_caller_are_in_order_of_their_ranks_with_a_minute_for_priority(
    arrivals: list[tuple[float, int, float, Priority]],
) -> None:
    queue, flow = Queue(), CallerFlow()
    lane = Lane("simulated", SimulatedEngine(PACKED), Output.POOLED, 1, PACKED.cost)
    keys, ranks = [], []
    for submission, (now, count, patience, priority) in enumerate(sorted(arrivals)):
        lengths = np.full(count, 20)
        (rank, *_) = lane.arrange(submission, lengths, now + patience, now).rank.tolist()
        keys.append((rank - AGEING * (priority is Priority.HIGH), submission))
        ranks += [rank] * count
        queue.add(flow, lane.arrange(submission, lengths, now + patience, now, priority))
    assert list(dict.fromkeys(flow.rows.submission.tolist())) == [submission for _, submission in sorted(keys)]
    assert flow.rows.rank.tolist() == sorted(ranks), "other callers see the ranks of NORMAL rows"


@given(st.floats(0, 1e6), st.integers(1, 500), st.floats(1e-3, 1e3))
def test_a_low_request_has_the_ranks_of_a_normal_one_a_minute_later_unless_its_deadline_is_sooner(
    now: float, count: int, patience: float
) -> None:
    lane = Lane("simulated", SimulatedEngine(PACKED), Output.POOLED, 1, PACKED.cost)
    lengths = np.full(count, 20)
    low = lane.arrange(0, lengths, np.inf, now, Priority.LOW)
    assert low.order is None
    assert low.rank == pytest.approx(lane.arrange(0, lengths, np.inf, now + AGEING).rank, rel=1e-12)
    hurried = lane.arrange(0, lengths, now + patience, now, Priority.LOW).rank
    assert (hurried >= lane.arrange(0, lengths, now + patience, now).rank).all()
    assert (hurried <= np.maximum(now, np.minimum(low.rank, now + patience))).all()


def test_low_requests_have_an_eighth_of_the_weight_of_large_ones() -> None:
    queue = Queue()
    queue.add(queue.flow_of("a", LARGE_WEIGHT), rows(1, 40))
    queue.add(queue.flow_of("b", LOW_WEIGHT), rows(2, 40))
    assert served(queue, 36).count(2) == 4
    queue.remove("b", np.array([2]))
    assert [flow.key for flow in queue.flows] == [("a", LARGE_WEIGHT)]


def test_large_requests_have_an_eighth_of_the_weight_of_small_ones_of_the_same_caller() -> None:
    queue = Queue()
    queue.add(queue.flow_of("a", LARGE_WEIGHT), rows(1, 40))
    queue.add(queue.flow_of("a"), rows(2, 40))
    assert served(queue, 36).count(1) == 4


def test_among_equals_known_callers_come_before_unknown_ones() -> None:
    queue = Queue()
    for number in range(20):
        queue.add(queue.flow_of(f"new-{number}"), rows(number, 1, rank=float(number)))
    queue.add(queue.flow_of("old", known=True), rows(100, 2, rank=50.0))
    assert served(queue, 2, burst=10.0) == [100, 100]


def test_health_probes_have_a_small_share() -> None:
    queue = Queue()
    queue.add(queue.flow_of("a"), rows(1, 40))
    queue.add(queue.flow_of(HEALTH), rows(2, 40))
    assert served(queue, 33).count(2) == 3
    assert queue.share_of(queue.flow_of(HEALTH)) < 0.1


def test_the_number_of_flows_is_bounded_and_rows_beyond_it_can_still_be_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_FLOWS", 8)
    queue = Queue()
    for number in range(100):
        queue.add(queue.flow_of(f"new-{number}"), rows(number, 1))
    assert len(list(queue.flows)) == 5
    assert queue.flow_of("another").key == (OTHERS, SMALL_WEIGHT)
    assert queue.flow_of("old", known=True).key == ("old", SMALL_WEIGHT)
    for number in range(100):
        queue.remove(f"new-{number}", np.array([number]))
    assert (queue.sequences, queue.tokens, len(list(queue.flows))) == (0, 0, 0)


def test_the_flow_of_all_others_has_the_weight_of_one_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FLOWS", 8)
    queue = Queue()
    for number in range(4):
        queue.add(queue.flow_of(f"new-{number}"), rows(number, 1))
    flow = queue.flow_of(HEALTH)
    assert (flow.key, flow.weight) == ((OTHERS, SMALL_WEIGHT), 1.0)


def test_callers_are_forgotten_when_others_have_caught_up_with_them() -> None:
    queue = Queue()
    for number in range(3 * MAX_FLOWS):
        queue.add(queue.flow_of(f"new-{number}"), rows(number, 1))
        served(queue, 1)
    assert len(queue._ahead) <= MAX_FLOWS + 1


def test_unknown_callers_together_have_one_share_of_the_backlog() -> None:
    queue = Queue()
    for number in range(99):
        queue.add(queue.flow_of(f"new-{number}"), rows(number, 1))
    assert queue.share_of(queue.flow_of("old", known=True)) == pytest.approx(1 / 2)
    assert queue.share_of(queue.flow_of("new")) == pytest.approx(1 / 100)


def test_a_batch_of_several_callers_is_charged_to_each_by_its_rows() -> None:
    queue = Queue()
    queue.add(queue.flow_of("a"), rows(1, 3))
    queue.add(queue.flow_of("b"), rows(2, 2))
    window = queue.turns(PACKED.cost, ROWS, 1e9).window(ROWS)
    assert window.rows.submission.tolist() == [1, 1, 1, 2, 2]
    queue.take(window, np.arange(4), np.array([1.0, 2.0, 3.0, 4.0]))
    assert {flow.key[0]: flow.start for flow in queue.flows} == {"b": 4.0}
    assert queue.flow_of("a").start == 6.0
    assert len(queue) == 1
