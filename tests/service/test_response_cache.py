import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from birnn_service.response_cache import OVERHEAD, ResponseCache

ROW = np.arange(4, dtype=np.float32)
SIZE = 8 + ROW.nbytes + OVERHEAD


def key(number: int) -> bytes:
    return number.to_bytes(8, "little")


def test_what_is_asked_for_again_stays_and_the_oldest_goes() -> None:
    cache = ResponseCache(2 * SIZE)
    cache.put(1, key(1), ROW)
    cache.put(1, key(2), ROW + 1)
    assert cache.get(1, key(1)) is not None
    cache.put(1, key(3), ROW + 2)
    assert cache.get(1, key(2)) is None
    kept = cache.get(1, key(1))
    assert kept is not None
    assert kept.tolist() == ROW.tolist()


def test_encoders_do_not_share_entries() -> None:
    cache = ResponseCache(10 * SIZE)
    cache.put(1, key(1), ROW)
    assert cache.get(2, key(1)) is None


def test_an_entry_outlives_changes_to_the_array_that_it_came_from() -> None:
    cache = ResponseCache(SIZE)
    row = ROW.copy()
    cache.put(1, key(1), row)
    row[:] = -1
    kept = cache.get(1, key(1))
    assert kept is not None
    assert kept.tolist() == ROW.tolist()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200), st.integers(0, 8 * SIZE))
def test_it_never_outgrows_its_bound_and_never_answers_with_another_row(
    steps: list[tuple[bool, int]], bound: int
) -> None:
    cache = ResponseCache(bound)
    for write, number in steps:
        if write:
            cache.put(1, key(number), ROW + number)
        elif (found := cache.get(1, key(number))) is not None:
            assert found.tolist() == (ROW + number).tolist()
        assert cache.bytes == len(cache) * SIZE <= bound


async def test_of_an_encoder_that_is_unloaded_nothing_is_kept_and_of_others_everything() -> None:
    cache = ResponseCache(10_000 * SIZE)
    for number in range(3000):
        cache.put(number % 2, key(number), ROW)
    await cache.forget(1)
    assert (len(cache), cache.bytes) == (1500, 1500 * SIZE)
    assert cache.get(1, key(1)) is None
    assert cache.get(0, key(0)) is not None
