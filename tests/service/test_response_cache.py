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


def test_a_tenant_finds_only_what_it_has_asked_for() -> None:
    cache = ResponseCache(10 * SIZE)
    cache.put(1, key(1), ROW, "a")
    assert cache.get(1, key(1), "b") is None
    assert cache.get(1, key(1)) is None
    cache.put(1, key(1), ROW + 1, "b")
    assert [cache.get(1, key(1), tenant)[0] for tenant in ("a", "b")] == [0, 1]  # type: ignore[index]


def test_a_storm_pushes_out_nothing_that_another_keeps_within_its_share() -> None:
    cache = ResponseCache(30 * SIZE)
    for number in range(10):
        cache.put(1, key(number), ROW, "small")
    for number in range(1000):
        cache.put(1, key(number), ROW, f"greedy-{number % 2}")
    assert all(cache.get(1, key(number), "small") is not None for number in range(10))
    assert len(cache) == 30


def test_what_a_tenant_has_beyond_its_share_goes_when_others_come() -> None:
    cache = ResponseCache(30 * SIZE)
    for number in range(100):
        cache.put(1, key(number), ROW, "first")
    assert len(cache) == 30
    for number in range(100):
        cache.put(1, key(number), ROW, "second")
    kept = {
        tenant: [n for n in range(100) if cache.get(1, key(n), tenant) is not None] for tenant in ("first", "second")
    }
    assert kept == {"first": list(range(85, 100)), "second": list(range(85, 100))}


STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.sampled_from(["", "a", "b", "c"])), max_size=300)


@given(STEPS, st.integers(SIZE, 12 * SIZE))
def test_no_tenant_loses_a_row_while_it_keeps_less_than_its_share(
    steps: list[tuple[bool, int, str]], bound: int
) -> None:
    cache, tenants = ResponseCache(bound), ("", "a", "b", "c")
    held: dict[str, set[int]] = {tenant: set() for tenant in tenants}
    for write, number, tenant in steps:
        if not write:
            assert (cache.get(1, key(number), tenant) is not None) == (number in held[tenant])
            continue
        cache.put(1, key(number), ROW, tenant)
        before = {name: set(numbers) for name, numbers in held.items()}
        before[tenant].add(number)
        held = {name: {n for n in range(21) if (name, n) in _kept(cache)} for name in tenants}
        share = bound / sum(map(bool, before.values()))
        for name in tenants:
            assert held[name] == before[name] or len(before[name]) * SIZE > share
        assert cache.bytes == len(cache) * SIZE <= bound


def _kept(cache: ResponseCache) -> set[tuple[str, int]]:
    """What is kept, without asking for it: that would make it the latest."""
    return {
        (tenant, int.from_bytes(row, "little")) for tenant, shelf in cache._shelves.items() for _, row in shelf.rows
    }


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
