"""Who is taken for a lone caller, on a clock that is told."""

from birnn_service.queueing.placement import PAUSE, STREAK, TURNAROUND, SequentialCaller


def lone(gap: float = 0.01) -> tuple[SequentialCaller, float]:
    """A caller who has come often enough, and the time of the last call."""
    caller, now = SequentialCaller(), 100.0
    for _ in range(STREAK + 1):
        now += gap
        caller.arrived(False, now)
    return caller, now


def test_one_call_after_another_is_a_lone_caller_once_there_were_enough() -> None:
    caller = SequentialCaller()
    alone = []
    for number in range(STREAK + 1):
        caller.arrived(False, 100 + 0.01 * number)
        alone.append(caller.is_alone)
    assert alone == [False] * STREAK + [True]


def test_a_call_that_finds_another_ends_it() -> None:
    caller, now = lone()
    caller.arrived(True, now + 0.01)
    assert not caller.is_alone


def test_a_call_that_must_have_come_while_the_loop_computed_ends_it() -> None:
    caller, now = lone()
    caller.ran(now + 0.01)
    caller.arrived(False, now + 0.01 + TURNAROUND / 2)
    assert not caller.is_alone


def test_a_call_that_came_after_the_reply_goes_on_with_it() -> None:
    caller, now = lone()
    caller.ran(now + 0.01)
    caller.arrived(False, now + 0.01 + 2 * TURNAROUND)
    assert caller.is_alone


def test_calls_far_apart_are_none() -> None:
    caller, _ = lone(gap=2 * PAUSE)
    assert not caller.is_alone
