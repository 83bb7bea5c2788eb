"""Batches hold every row once, within the budget, mostly of one length."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from birnn_export.training.batches import plan_batches


@given(lengths=st.lists(st.integers(1, 40), max_size=80), budget=st.integers(1, 120), seed=st.integers(0, 9))
def test_every_row_is_used_once_and_the_budget_is_kept(lengths: list[int], budget: int, seed: int) -> None:
    sizes = np.array(lengths, np.int64)
    rows = np.arange(len(lengths), dtype=np.intp)
    batches = plan_batches(sizes, rows, budget, np.random.default_rng(seed))
    assert sorted(np.concatenate([*batches, rows[:0]]).tolist()) == rows.tolist()
    for batch in batches:
        assert len(batch) == 1 or len(batch) * sizes[batch].max() <= budget


def test_batches_of_common_lengths_need_no_padding_and_are_shuffled_between_epochs() -> None:
    lengths = np.repeat(np.array([10, 20], np.int64), 500)
    rows = np.arange(1000, dtype=np.intp)
    first, second = (plan_batches(lengths, rows, 100, np.random.default_rng([0, epoch])) for epoch in (0, 1))
    assert all(len(set(lengths[batch])) == 1 for batch in first)
    assert len(first) == len(second)
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]


def test_a_handful_of_one_length_joins_its_neighbors() -> None:
    lengths = np.array([10, 10, 11, 11, 40, 40, 40], np.int64)
    batches = plan_batches(lengths, np.arange(7, dtype=np.intp), 240, np.random.default_rng(0))
    assert sorted(sorted(lengths[batch].tolist()) for batch in batches) == [[10, 10, 11, 11], [40, 40, 40]]


def test_only_the_rows_asked_for_are_batched() -> None:
    lengths = np.array([3, 3, 4, 5], np.int64)
    batches = plan_batches(lengths, np.array([0, 3]), 100, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == [0, 3]
