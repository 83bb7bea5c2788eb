"""Which calls are traced and logged, and what their spans say."""

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from birnn_service.call import Call, Spent
from birnn_service.errors import Code, EngineError, InvalidRequestError, OverloadedError, Reason, ServiceError
from birnn_service.memory_budget import MemoryBudget
from birnn_service.observe.call_observer import CallObserver
from birnn_service.observe.notes import Notes
from birnn_service.observe.spans import FinishedSpan, SpanIds
from birnn_service.settings_reader import load_settings
from tests.service.observe.test_batch_spans import Kept

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
PARENT = SpanIds(int(TRACE, 16), int(SPAN, 16))


class Arriving:
    """A call that has come."""

    caller = "ipv4:192.0.2.1"
    deadline = None
    request_id = certificate_name = ""

    def __init__(self, traceparent: str = "", path: str = "", tracestate: str = "") -> None:
        self.traceparent = traceparent
        self.path = path
        self.tracestate = tracestate

    def header(self, name: str) -> str:
        return self.tracestate if name == "tracestate" else ""

    def at_end(self, ended: Callable[[], None]) -> None: ...


def observer_of(tracing: Kept | None = None, **settings: Any) -> CallObserver:
    return CallObserver(load_settings(settings), tracing or Kept())


def call_of(notes: Notes | None, caller: str = Arriving.caller) -> Call:
    return Call(caller, None, MemoryBudget(1).open("somebody"), notes=notes)


@pytest.mark.parametrize(
    ("header", "ratio", "traced"),
    [
        (SAMPLED, 0.0, True),
        (UNSAMPLED, 1.0, False),
        ("", 0.0, False),
        ("", 1.0, True),
        ("not a header", 1.0, True),
        ("not a header", 0.0, False),
    ],
)
def test_the_caller_decides_and_chance_where_it_does_not(header: str, ratio: float, traced: bool) -> None:
    notes = observer_of(trace_ratio=ratio).begin(Arriving(header))
    assert (notes is not None) is traced
    if notes is not None:
        assert notes.ids is not None
        assert notes.parent == (PARENT if header == SAMPLED else None)
        assert (notes.ids.trace == PARENT.trace) is (header == SAMPLED)
        assert notes.ids.span not in (0, PARENT.span)
        assert not notes.logged


def test_a_caller_cannot_have_every_call_traced_at_any_rate() -> None:
    observer = observer_of(Kept(spans_per_second=1e-6))
    assert [observer.begin(Arriving(SAMPLED)) is not None for _ in range(3)] == [True, False, False]


def test_no_sampled_call_is_lost_to_the_log_and_none_needs_a_trace_for_it() -> None:
    observer = CallObserver(load_settings({"access_log": 1.0}), None)
    notes = observer.begin(Arriving(SAMPLED))
    assert notes is not None
    assert (notes.ids, notes.logged) == (None, True)
    assert CallObserver.of(load_settings({}), None) is None


@pytest.mark.parametrize(("sent", "kept"), [("a=1,b=2", "a=1,b=2"), ("a=" + "x" * 511, ""), ("a=" + "x" * 510, "a=")])
def test_the_callers_state_goes_along_unless_it_is_too_long(sent: str, kept: str) -> None:
    notes = observer_of().begin(Arriving(SAMPLED, tracestate=sent))
    assert notes is not None
    assert notes.state == (sent if kept else "")


def spans_of(
    method: str, code: Code, error: ServiceError | None, path: str = "", caller: str = Arriving.caller, **noted: Any
) -> list[FinishedSpan]:
    tracing = Kept()
    observer = observer_of(tracing)
    incoming = Arriving(SAMPLED, path)
    call = call_of(observer.begin(incoming), caller)
    assert call.notes is not None
    spent = noted.pop("spent", None)
    for name, value in noted.items():
        setattr(call.notes, name, call.started + value)
    call.spent = spent
    observer.end(method, incoming, call, code, error)
    return tracing.spans


INVALID = InvalidRequestError("the sequence CCO is not good")
FULL = OverloadedError("it is full", 1.0, Reason.QUEUE)


@pytest.mark.parametrize(
    ("code", "error", "failed"),
    [
        (Code.OK, None, False),
        (Code.CANCELLED, None, False),
        (Code.INVALID_ARGUMENT, INVALID, False),
        (Code.RESOURCE_EXHAUSTED, FULL, False),
        (Code.INTERNAL, EngineError("it failed"), True),
    ],
)
def test_what_the_server_has_failed_at_is_an_error_over_grpc(
    code: Code, error: ServiceError | None, failed: bool
) -> None:
    span, *_ = spans_of("Encode", code, error)
    assert (span.name, span.kind, span.parent, span.remote) == (
        "birnn.v1.EncoderService/Encode",
        "server",
        PARENT,
        True,
    )
    attributes = dict(span.attributes or {})
    assert attributes["rpc.system.name"] == "grpc"
    assert attributes["rpc.method"] == "birnn.v1.EncoderService/Encode"
    assert attributes["rpc.response.status_code"] == code.name
    assert attributes.get("error.type") == (code.name if failed else None)
    assert span.failure == ("it failed" if failed else None)
    assert "CCO" not in str(attributes)


@pytest.mark.parametrize(
    ("code", "error", "status", "failed"),
    [
        (Code.OK, None, 200, False),
        (Code.CANCELLED, None, None, False),
        (Code.INVALID_ARGUMENT, INVALID, 400, False),
        (Code.RESOURCE_EXHAUSTED, FULL, 429, False),
        (Code.INTERNAL, EngineError("it failed"), 500, True),
    ],
)
def test_what_the_server_has_failed_at_is_an_error_over_http(
    code: Code, error: ServiceError | None, status: int | None, failed: bool
) -> None:
    span, *_ = spans_of("POST /v2/models/{model}/infer", code, error, path="/v2/models/smiles\n/infer")
    attributes = dict(span.attributes or {})
    assert span.name == "POST /v2/models/{model}/infer"
    assert attributes["http.request.method"] == "POST"
    assert attributes["http.route"] == "/v2/models/{model}/infer"
    assert attributes["url.path"] == "/v2/models/smiles\\n/infer"
    assert attributes["url.scheme"] == "http"
    assert attributes.get("http.response.status_code") == status
    assert attributes.get("error.type") == (str(status) if failed else None)


@pytest.mark.parametrize(
    ("caller", "name", "value"),
    [
        ("name:lab", "enduser.id", "lab"),
        ("ipv4:192.0.2.1", "client.address", "192.0.2.1"),
        ("ipv6:2001:db8::/64", "client.address", "2001:db8::/64"),
        ("unix", "client.address", "unix"),
    ],
)
def test_callers_are_named(caller: str, name: str, value: str) -> None:
    span, *_ = spans_of("Encode", Code.OK, None, caller=caller)
    assert dict(span.attributes or {})[name] == value


FAULT = EngineError("it failed")


@pytest.mark.parametrize(
    ("noted", "stages", "failing"),
    [
        ({}, ["receive"], "receive"),
        ({"received": 1.0}, ["receive"], None),
        ({"received": 1.0, "tokenizing": 2.0}, ["receive", "tokenize"], "tokenize"),
        ({"received": 1.0, "tokenizing": 2.0, "tokenized": 3.0}, ["receive", "tokenize", "encode"], "encode"),
        (
            {"received": 1.0, "tokenizing": 2.0, "tokenized": 3.0, "spent": Spent(1, 1.0, 4.0, 5.0, 12.0)},
            ["receive", "tokenize", "queue", "compute", "reply"],
            "reply",
        ),
        # All from the cache.
        (
            {"received": 1.0, "tokenizing": 2.0, "tokenized": 3.0, "spent": Spent(1, 1.0, 0.0, 0.0, 3.0)},
            ["receive", "tokenize", "reply"],
            "reply",
        ),
    ],
)
def test_stages_that_were_reached_and_the_one_that_failed(
    noted: dict[str, Any], stages: list[str], failing: str | None
) -> None:
    span, *children = spans_of("Encode", Code.INTERNAL, FAULT, **noted)
    assert [child.name for child in children] == stages
    assert [child.name for child in children if child.failure] == ([failing] if failing else [])
    assert all(child.parent == span.ids and child.ids.trace == span.ids.trace for child in children)
    assert len({span.ids, *(child.ids for child in children)}) == 1 + len(children)
    starts = [child.started for child in children]
    assert starts == sorted(starts)


def test_stages_do_not_overlap_where_the_longest_of_several_batches_began_before_the_last() -> None:
    spent = Spent(2, 1.0, 4.0, 6.0, 9.0)
    _, *children = spans_of("Encode", Code.OK, None, received=1.0, tokenizing=2.0, tokenized=3.0, spent=spent)
    assert all(one.ended <= other.started for one, other in pairwise(children))


def test_times_of_stages() -> None:
    span, *children = spans_of(
        "Encode", Code.OK, None, received=1.0, tokenizing=2.0, tokenized=3.0, spent=Spent(1, 1.0, 4.0, 5.0, 12.5)
    )
    times = {
        child.name: ((child.started - span.started) / 1e9, (child.ended - span.started) / 1e9) for child in children
    }
    assert times.pop("reply")[0] == pytest.approx(12.5)
    for name, (start, end) in {
        "receive": (0.0, 1.0), "tokenize": (2.0, 3.0), "queue": (3.0, 7.0), "compute": (7.0, 12.0),
    }.items():  # fmt: skip
        assert times.pop(name) == pytest.approx((start, end))
    assert not times


def test_refused_callers_are_logged_and_traced_by_nothing(caplog: pytest.LogCaptureFixture) -> None:
    # The level of the other logs is not about this one.
    caplog.set_level(logging.ERROR)
    caplog.handler.setLevel(logging.NOTSET)
    tracing = Kept()
    observer = observer_of(tracing, access_log=1.0)
    observer.end("Encode", Arriving(SAMPLED), call_of(None), Code.UNAUTHENTICATED, None)
    assert tracing.spans == []
    (record,) = caplog.records
    assert record.__dict__["fields"]["code"] == "UNAUTHENTICATED"
    assert record.__dict__["fields"]["trace_id"] == TRACE
