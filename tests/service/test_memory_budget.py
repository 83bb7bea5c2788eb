import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_service.errors import InvalidRequestError, OverloadedError
from birnn_service.memory_budget import CALLER_SHARE, RETRY_SECONDS, Hold, MemoryBudget

MIB = 1 << 20


def test_a_call_that_could_never_fit_is_to_be_split() -> None:
    hold = MemoryBudget(100 * MIB).open("a")
    hold.take(60 * MIB)
    with pytest.raises(InvalidRequestError, match=r"needs 101 MiB .* has 100 MiB .*--memory-mib.*split"):
        hold.take(41 * MIB)


def test_what_other_calls_hold_is_refused_until_they_end() -> None:
    budget = MemoryBudget(100 * MIB)
    first, second = budget.open("a"), budget.open("b")
    first.take(70 * MIB)
    with pytest.raises(OverloadedError, match=r"needs 40 MiB .* hold 70 MiB.* has 100 MiB .*--memory-mib") as caught:
        second.take(40 * MIB)
    assert caught.value.retry_after == RETRY_SECONDS
    first.close()
    second.take(40 * MIB)
    assert budget.held == 40 * MIB


def test_one_caller_s_calls_leave_room_for_others() -> None:
    budget = MemoryBudget(100 * MIB)
    calls = [budget.open("a") for _ in range(5)]
    for call in calls[:4]:
        call.take(18 * MIB)
    with pytest.raises(OverloadedError, match=r"75 for one caller"):
        calls[4].take(18 * MIB)
    budget.open("b").take(18 * MIB)


def test_a_lone_call_may_take_everything() -> None:
    hold = MemoryBudget(100 * MIB).open("a")
    hold.take(50 * MIB)
    hold.take(50 * MIB)
    assert hold.size == 100 * MIB


def test_a_call_that_has_ended_holds_nothing_more() -> None:
    budget = MemoryBudget(100 * MIB)
    hold = budget.open("a")
    hold.take(10 * MIB)
    hold.close()
    hold.close()
    hold.take(10 * MIB)
    assert budget.held == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.booleans()), max_size=60))
def test_no_more_is_held_than_there_is_and_everything_comes_back(steps: list[tuple[str, int, bool]]) -> None:
    budget = MemoryBudget(100)
    holds: list[tuple[str, Hold]] = []
    for caller, size, closes in steps:
        if closes and holds:
            holds.pop(size % len(holds))[1].close()
        hold = budget.open(caller)
        try:
            hold.take(size)
        except OverloadedError:
            continue
        holds.append((caller, hold))
        mine = [held.size for whose, held in holds if whose == caller and held.size]
        assert budget.held == sum(held.size for _, held in holds) <= 100
        assert sum(mine) <= CALLER_SHARE * 100 or len(mine) == 1
    for _, hold in holds:
        hold.close()
    assert budget.held == 0
