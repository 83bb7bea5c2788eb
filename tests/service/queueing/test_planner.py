import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.planner import SPENT, cheapest, most_even, plan_batch, plan_side_by_side, prompt_rows

CPU = CostModel(fixed=50e-6, per_step=8e-6, per_cell=12e-6)
PACKED = CostModel(50e-6, 8e-6, 8e-6, packed=True)
GPU = CostModel(fixed=100e-6, per_step=8e-6, per_cell=0.01e-6)
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)
COSTS = st.builds(CostModel, st.floats(0, 1e-3), st.floats(0, 1e-4), st.floats(1e-9, 1e-4))


def alone(lengths: NDArray[np.int64], cost: CostModel, max_rows: int) -> NDArray[np.intp]:
    """A plan for requests of one row each."""
    return plan_batch(lengths, np.arange(len(lengths)), cost, max_rows)


@given(LENGTHS, COSTS, st.integers(1, 64))
@settings(deadline=None)
def test_a_plan_holds_the_most_urgent_row_no_row_twice_and_no_more_than_allowed(
    lengths: list[int], cost: CostModel, max_rows: int
) -> None:
    plan = alone(np.array(lengths), cost, max_rows).tolist()
    assert 0 in plan
    assert len(set(plan)) == len(plan) <= max_rows


@given(LENGTHS, COSTS, st.integers(1, 64))
@settings(deadline=None)
def test_running_the_plan_together_is_never_dearer_than_one_by_one(
    lengths: list[int], cost: CostModel, max_rows: int
) -> None:
    chosen = np.array(lengths)[alone(np.array(lengths), cost, max_rows)]
    together = cost.seconds(len(chosen), int(chosen.max()))
    apart = sum(cost.seconds(1, int(length)) for length in chosen)
    assert together <= apart * (1 + 1e-9)


def least_by_trying(lengths: list[int], cost: CostModel, max_rows: int, spent: float) -> float:
    """The least total of every way to cut sorted rows into batches."""
    costs = []
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):
        bounds = [0, *(place for place, cut in enumerate(cuts, start=1) if cut), len(lengths)]
        batches = list(itertools.pairwise(bounds))
        if all(high - low <= max_rows for low, high in batches):
            costs.append(total(batches, lengths, cost, spent))
    return min(costs)


def total(batches: list[tuple[int, int]], lengths: list[int], cost: CostModel, spent: float) -> float:
    return sum(
        spent * (cost.fixed + cost.per_step * lengths[high - 1]) + cost.per_cell * lengths[high - 1] * (high - low)
        for low, high in batches
    )


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9, unique=True).map(sorted), COSTS, st.integers(1, 9))
@settings(deadline=None)
def test_the_division_is_the_cheapest_there_is(lengths: list[int], cost: CostModel, max_rows: int) -> None:
    for spent in (SPENT, 1.0):
        batches = cheapest(np.array(lengths), cost, max_rows, spent)
        assert total(batches, lengths, cost, spent) == pytest.approx(
            least_by_trying(lengths, cost, max_rows, spent), rel=1e-9
        )


@given(LENGTHS.map(sorted), COSTS, st.integers(1, 64), st.integers(1, 8))
@settings(deadline=None)
def test_divisions_hold_every_row_once_and_no_batch_is_too_large(
    lengths: list[int], cost: CostModel, max_rows: int, batches: int
) -> None:
    ordered = np.array(lengths)
    for division in (cheapest(ordered, cost, max_rows, SPENT), most_even(ordered, cost, max_rows, batches)):
        assert sorted(row for low, high in division for row in range(low, high)) == list(range(len(lengths)))
        assert all(0 < high - low <= max_rows for low, high in division)


@given(LENGTHS, COSTS, st.integers(1, 64), st.integers(1, 4), st.booleans())
@settings(deadline=None)
def test_side_by_side_the_most_urgent_row_runs_no_row_twice_and_one_batch_a_slot(
    lengths: list[int], cost: CostModel, max_rows: int, slots: int, packed: bool
) -> None:
    cost = CostModel(cost.fixed, cost.per_step, cost.per_cell, packed)
    plan = plan_side_by_side(np.array(lengths), cost, max_rows, slots)
    rows = [row for batch in plan.batches for row in batch.tolist()]
    assert 0 in rows
    assert len(set(rows)) == len(rows)
    assert 1 <= len(plan.batches) <= slots
    assert all(0 < len(batch) <= max_rows for batch in plan.batches)
    slowest = max(cost.batch_seconds(np.array(lengths)[batch]) for batch in plan.batches)
    assert plan.seconds >= slowest * (1 - 1e-9)


@pytest.mark.parametrize("cost", [CPU, PACKED])
def test_idle_cores_end_at_about_the_same_time(cost: CostModel) -> None:
    lengths = np.random.default_rng(0).integers(20, 100, 16)
    plan = plan_side_by_side(lengths, cost, 32, 2)
    one = plan_side_by_side(lengths, cost, 32, 1)
    assert plan.seconds < 0.62 * one.seconds


def test_packed_rows_run_in_order_of_urgency_whatever_their_length() -> None:
    lengths = np.random.default_rng(0).integers(10, 300, 40)
    plan = alone(lengths, PACKED, 16).tolist()
    assert plan == list(range(16))


def test_a_packed_batch_ends_with_a_request_where_one_ends_near_and_else_where_it_would() -> None:
    lengths = np.full(96, 48)
    for size in (8, 32, 48):
        assert len(plan_batch(lengths, np.arange(96) // size, PACKED, 64)) % size == 0
    assert len(plan_batch(lengths, np.zeros(96, dtype=np.int64), PACKED, 64)) == min(64, prompt_rows(lengths, PACKED))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 64), COSTS)
@settings(deadline=None)
def test_a_packed_batch_of_requests_of_any_size_is_never_empty_nor_too_large(
    sizes: list[int], max_rows: int, cost: CostModel
) -> None:
    submissions = np.repeat(np.arange(len(sizes)), sizes)
    packed = CostModel(cost.fixed, cost.per_step, cost.per_cell, packed=True)
    plan = plan_batch(np.full(len(submissions), 48), submissions, packed, max_rows).tolist()
    assert plan == list(range(len(plan)))
    assert 1 <= len(plan) <= min(max_rows, len(submissions))


def test_packed_batches_grow_with_what_waits_and_with_the_overhead() -> None:
    few, many = np.full(10, 48), np.full(1000, 48)
    dear = CostModel(500e-6, 8e-6, 8e-6, packed=True)
    assert prompt_rows(few, PACKED) < prompt_rows(many, PACKED) < prompt_rows(many, dear) < 1000
    assert prompt_rows(many, CostModel(0.0, 0.0, 8e-6, packed=True)) == 1


@given(LENGTHS)
@settings(deadline=None)
def test_a_packed_batch_costs_its_tokens_and_a_padded_one_its_longest_row(lengths: list[int]) -> None:
    rows = np.array(lengths)
    assert PACKED.cells(rows) == sum(lengths)
    assert CPU.cells(rows) == len(lengths) * max(lengths)
    assert PACKED.batch_seconds(rows) == pytest.approx(50e-6 + 8e-6 * max(lengths) + 8e-6 * sum(lengths))
    assert CPU.batch_seconds(rows) == pytest.approx(CPU.seconds(len(lengths), max(lengths)))


@given(LENGTHS, COSTS, st.integers(1, 64))
@settings(deadline=None)
def test_a_plan_is_contiguous_in_length(lengths: list[int], cost: CostModel, max_rows: int) -> None:
    values = np.array(lengths)
    plan = alone(values, cost, max_rows)
    left = np.delete(values, plan)
    low, high = values[plan].min(), values[plan].max()
    assert not ((left > low) & (left < high)).any()


def test_equal_lengths_fill_the_batch() -> None:
    assert len(alone(np.full(96, 48), CPU, 32)) == 32


def test_where_padding_is_paid_in_full_lengths_are_kept_apart_and_where_it_is_free_they_are_not() -> None:
    lengths = np.array([20, 200, 21, 22, 190, 19])
    assert sorted(alone(lengths, CPU, 32).tolist()) == [0, 2, 3, 5]
    assert len(alone(lengths, GPU, 32)) == 6


@pytest.mark.parametrize("shape", [(1, 16), (8, 64), (32, 16)])
def test_a_fit_recovers_the_times_it_was_given(shape: tuple[int, int]) -> None:
    shapes = [(1, 16), (1, 64), (8, 16), (8, 64), (32, 16), (32, 64)]
    fitted = CostModel.fit([(rows, steps, CPU.seconds(rows, steps)) for rows, steps in shapes])
    assert fitted.seconds(*shape) == pytest.approx(CPU.seconds(*shape), rel=1e-6)


@given(st.lists(st.floats(1e-5, 1e-1), min_size=6, max_size=6))
@settings(deadline=None)
def test_a_fit_to_noise_never_predicts_negative_times(seconds: list[float]) -> None:
    shapes = [(1, 16), (1, 64), (8, 16), (8, 64), (32, 16), (32, 64)]
    fitted = CostModel.fit([(*shape, second) for shape, second in zip(shapes, seconds, strict=True)])
    assert min(fitted.fixed, fitted.per_step, fitted.per_cell) >= 0
    assert fitted.seconds(1, 1) >= 0


def test_a_packed_batch_ends_before_a_large_request_that_would_delay_the_small_ones_before_it() -> None:
    lengths = np.full(103, 48)
    submissions = np.array([1, 2, 3] + [4] * 100)
    assert plan_batch(lengths, submissions, PACKED, 64).tolist() == [0, 1, 2]


def test_packed_requests_of_one_sequence_stay_together() -> None:
    lengths, submissions = np.full(40, 48), np.arange(40)
    expected = min(40, prompt_rows(lengths, PACKED))
    assert len(plan_batch(lengths, submissions, PACKED, 64)) == expected
