from hypothesis import given
from hypothesis import strategies as st

from birnn_service.observe.span_budget import SpanBudget

CALL = 6


@given(
    st.floats(0.01, 100),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 2 * CALL)), max_size=50),
)
def test_no_more_spans_pass_than_the_rate_and_what_may_come_at_once(
    rate: float, asked: list[tuple[float, int]]
) -> None:
    now = 0.0
    budget = SpanBudget(rate, CALL, lambda: now)
    passed = 0
    for pause, count in asked:
        now += pause
        passed += count if budget.take(count) else 0
        assert passed <= now * rate + max(rate, CALL) + 1e-6


def test_a_call_passes_at_any_rate_once_enough_time_has_passed() -> None:
    now = 0.0
    budget = SpanBudget(0.5, CALL, lambda: now)
    assert budget.take(CALL)
    assert not budget.take(1)
    now = 11.9
    assert not budget.take(CALL)
    now = 12.0
    assert budget.take(CALL)
