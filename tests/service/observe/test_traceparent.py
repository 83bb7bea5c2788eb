import pytest

from birnn_service.observe.traceparent import Parent, read_traceparent, sampled_trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header",
    [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-03", f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"],
)
def test_the_trace_of_a_call_that_is_recorded(header: str) -> None:
    assert sampled_trace(header) == TRACE
    assert read_traceparent(header) == Parent(TRACE, SPAN, sampled=True)


def test_a_trace_that_is_not_recorded_has_its_ids() -> None:
    assert read_traceparent(f"00-{TRACE}-{SPAN}-00") == Parent(TRACE, SPAN, sampled=False)


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-02",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        "x" * 10_000,
    ],
)
def test_no_trace_where_there_is_none_to_look_at(header: str) -> None:
    assert sampled_trace(header) == ""
