import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher.cost import CostModel
from service.batcher.plan import plan_batch

CPU = CostModel(fixed=50e-6, per_step=8e-6, per_cell=12e-6)
GPU = CostModel(fixed=100e-6, per_step=8e-6, per_cell=0.01e-6)
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)
COSTS = st.builds(CostModel, st.floats(0, 1e-3), st.floats(0, 1e-4), st.floats(1e-9, 1e-4))


@given(LENGTHS, COSTS, st.integers(1, 64))
def test_a_plan_holds_the_most_urgent_row_no_row_twice_and_no_more_than_allowed(
    lengths: list[int], cost: CostModel, max_rows: int
) -> None:
    plan = plan_batch(np.array(lengths), cost, max_rows).tolist()
    assert 0 in plan
    assert len(set(plan)) == len(plan) <= max_rows


@given(LENGTHS, COSTS, st.integers(1, 64))
def test_running_the_plan_together_is_never_dearer_than_one_by_one(
    lengths: list[int], cost: CostModel, max_rows: int
) -> None:
    chosen = np.array(lengths)[plan_batch(np.array(lengths), cost, max_rows)]
    together = cost.seconds(len(chosen), int(chosen.max()))
    alone = sum(cost.seconds(1, int(length)) for length in chosen)
    assert together <= alone * (1 + 1e-9)


@given(LENGTHS, COSTS, st.integers(1, 64))
def test_a_plan_is_contiguous_in_length(lengths: list[int], cost: CostModel, max_rows: int) -> None:
    values = np.array(lengths)
    plan = plan_batch(values, cost, max_rows)
    left = np.delete(values, plan)
    low, high = values[plan].min(), values[plan].max()
    assert not ((left > low) & (left < high)).any()


def test_equal_lengths_fill_the_batch() -> None:
    assert len(plan_batch(np.full(96, 48), CPU, 32)) == 32


def test_where_padding_is_paid_in_full_lengths_are_kept_apart_and_where_it_is_free_they_are_not() -> None:
    lengths = np.array([20, 200, 21, 22, 190, 19])
    assert sorted(plan_batch(lengths, CPU, 32).tolist()) == [0, 2, 3, 5]
    assert len(plan_batch(lengths, GPU, 32)) == 6


@pytest.mark.parametrize("shape", [(1, 16), (8, 64), (32, 16)])
def test_a_fit_recovers_the_times_it_was_given(shape: tuple[int, int]) -> None:
    shapes = [(1, 16), (1, 64), (8, 16), (8, 64), (32, 16), (32, 64)]
    fitted = CostModel.fit([(rows, steps, CPU.seconds(rows, steps)) for rows, steps in shapes])
    assert fitted.seconds(*shape) == pytest.approx(CPU.seconds(*shape), rel=1e-6)


@given(st.lists(st.floats(1e-5, 1e-1), min_size=6, max_size=6))
def test_a_fit_to_noise_never_predicts_negative_times(seconds: list[float]) -> None:
    shapes = [(1, 16), (1, 64), (8, 16), (8, 64), (32, 16), (32, 64)]
    fitted = CostModel.fit([(*shape, second) for shape, second in zip(shapes, seconds, strict=True)])
    assert min(fitted.fixed, fitted.per_step, fitted.per_cell) >= 0
    assert fitted.seconds(1, 1) >= 0
