import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_service.engine.grid import Grid

grids = st.builds(Grid, st.sampled_from([1, 4, 32, 512]), st.integers(1, 3000), st.integers(1, 70_000))


@given(grids, st.integers(1, 600), st.integers(1, 3000))
def test_a_batch_is_rounded_to_a_shape_of_the_grid_that_holds_it(grid: Grid, rows: int, longest: int) -> None:
    longest = min(longest, grid.max_steps)
    steps = grid.steps(longest)
    rows = min(rows, grid.rows_at(steps))
    assert steps >= longest
    assert grid.rows(rows) >= rows
    assert (steps, grid.rows(rows)) in set(grid.shapes())


@given(grids)
def test_shapes_keep_within_the_bounds_and_come_once(grid: Grid) -> None:
    shapes = list(grid.shapes())
    assert len(shapes) == len(set(shapes))
    for steps, rows in shapes:
        assert rows <= grid.max_rows
        assert rows == 1 or steps * rows <= grid.max_cells
        assert grid.steps(steps) == steps
        assert grid.rows(rows) == rows


@given(st.integers(1, 100_000))
def test_a_quarter_of_the_steps_is_padding_at_most_beyond_short_sequences(longest: int) -> None:
    steps = Grid(512, 100_000, 65_536).steps(longest)
    assert longest <= steps <= max(longest * 1.25, longest + 7)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 4), (4, 4), (5, 16), (17, 64), (65, 128), (300, 512)])
def test_rows_are_rounded_to_few_sizes(rows: int, size: int) -> None:
    assert Grid(512, 1024, 65_536).rows(rows) == size


def test_a_grid_for_sequences_of_a_thousand_tokens_has_little_more_than_a_hundred_shapes() -> None:
    shapes = list(Grid(512, 1024, 65_536).shapes())
    assert len(shapes) < 150
    assert shapes[0] == (8, 512)
    assert max(steps * rows for steps, rows in shapes) == 65_536
