"""Plans: every record is in one part, every part in one share, and a folder belongs to one job."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bulk.plan import BulkError, InputFile, Plan, Recipe, Slice, default_part_rows

RECIPE = Recipe(
    encoder="small/1",
    encoder_digest="0" * 64,
    precision="float32",
    element_type="float32",
    normalize=False,
    truncate=False,
    column=None,
    header=None,
    delimiter=None,
    kind=None,
    keep=[],
)


def plan_of(records: list[int], part_rows: int = 100, limit: int | None = None, name: str = "a") -> Plan:
    inputs = [InputFile(name=f"{name}{place}", bytes=1, digest="x", records=n) for place, n in enumerate(records)]
    return Plan(recipe=RECIPE, inputs=inputs, part_rows=part_rows, limit=limit)


@given(
    st.lists(st.integers(0, 500), max_size=6),
    st.integers(1, 200),
    st.none() | st.integers(1, 1500),
    st.integers(1, 9),
)
def test_parts_hold_every_record_once_and_in_order(
    records: list[int], part_rows: int, limit: int | None, shares: int
) -> None:
    plan = plan_of(records, part_rows, limit)
    parts = plan.parts()
    assert [part.number for part in parts] == list(range(len(parts)))
    assert all(0 < part.rows <= part_rows for part in parts)
    found = [(part.input, row) for part in parts for row in range(part.start, part.stop)]
    assert found == [(place, row) for place, n in enumerate(records) for row in range(n)][:limit]
    assert [part for index in range(shares) for part in Slice(index, shares).of(parts)] == parts
    assert Plan.model_validate_json(plan.to_json()) == plan


@given(st.integers(1, 1 << 20))
def test_vectors_of_a_part_take_at_most_64_mib(dimension: int) -> None:
    rows = default_part_rows(dimension)
    assert rows * dimension * 4 <= 64 << 20 < 2 * rows * dimension * 4


@pytest.mark.parametrize("text", ["1", "1/1", "-1/2", "2/2", "0/0", "1/2/3", "٠/2"])
def test_shares_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="i/n"):
        Slice.parse(text)


def test_a_folder_keeps_its_first_plan(tmp_path: Path) -> None:
    first = plan_of([10])
    assert first.agreed(tmp_path) == first
    # From elsewhere the same files have other names, and the output keeps those that it began with.
    assert plan_of([10], name="/elsewhere/a").agreed(tmp_path) == first
    for other, difference in (
        (plan_of([10], part_rows=7), "part_rows was 100 and is 7"),
        (plan_of([10], limit=3), "limit was None and is 3"),
        (plan_of([11]), "the input a0 is not what it was"),
        (plan_of([10, 1]), "1 input files, and 2 are given"),
        (plan_of([10]).model_copy(update={"recipe": RECIPE.model_copy(update={"normalize": True})}), "normalize was"),
    ):
        with pytest.raises(BulkError, match=difference):
            other.agreed(tmp_path)
    (tmp_path / "plan.json").write_text('{"schema_version": 2}')
    with pytest.raises(BulkError, match="no plan that this version knows"):
        first.agreed(tmp_path)
