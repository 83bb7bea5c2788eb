import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn_service.frontends.allocator import ALIGNMENT, Allocator

SIZE = 64 * ALIGNMENT
# Each step takes so many bytes, or frees one of the blocks that live.
STEPS = st.lists(st.tuples(st.booleans(), st.integers(1, SIZE // 3)), max_size=80)


@settings(deadline=None)
@given(STEPS, st.data())
def test_blocks_never_overlap_and_what_is_freed_can_be_had_again(
    steps: list[tuple[bool, int]], data: st.DataObject
) -> None:
    allocator = Allocator(SIZE)
    live: dict[int, int] = {}
    for take, size in steps:
        if take or not live:
            start = allocator.allocate(size)
            if start is None:
                continue
            assert start % ALIGNMENT == 0
            assert start + size <= SIZE
            assert all(start + size <= other or other + length <= start for other, length in live.items())
            live[start] = size
        else:
            start = data.draw(st.sampled_from(sorted(live)))
            size = live.pop(start)
            hole, hole_end = allocator.free(start)
            assert hole <= start
            assert hole_end >= start + size
            assert all(hole_end <= other or other + length <= hole for other, length in live.items())
        assert sum(live.values()) <= allocator.used <= SIZE
    for start in live:
        allocator.free(start)
    assert allocator.used == 0
    assert allocator.allocate(SIZE) == 0


@settings(deadline=None)
@given(STEPS)
def test_nothing_is_refused_for_which_there_is_a_hole(steps: list[tuple[bool, int]]) -> None:
    allocator = Allocator(SIZE)
    taken = [False] * (SIZE // ALIGNMENT)
    live: list[tuple[int, int]] = []
    for take, size in steps:
        lines = -(-size // ALIGNMENT)
        if take or not live:
            start = allocator.allocate(size)
            text = "".join("x" if line else "." for line in taken)
            assert start == (found * ALIGNMENT if (found := text.find("." * lines)) >= 0 else None)
            if start is None:
                continue
            live.append((start // ALIGNMENT, lines))
        else:
            first, lines = live.pop(len(live) // 2)
            allocator.free(first * ALIGNMENT)
            taken[first : first + lines] = [False] * lines
            continue
        first, lines = live[-1]
        taken[first : first + lines] = [True] * lines


def test_what_is_not_a_block_cannot_be_freed_and_none_can_be_freed_twice() -> None:
    allocator = Allocator(SIZE)
    start = allocator.allocate(100)
    assert start == 0
    with pytest.raises(KeyError):
        allocator.free(ALIGNMENT)
    allocator.free(start)
    with pytest.raises(KeyError):
        allocator.free(start)
