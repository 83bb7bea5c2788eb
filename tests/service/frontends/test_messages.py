import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn_service.engine.engine import Output
from birnn_service.errors import (
    DeadlineError,
    EngineError,
    InvalidRequestError,
    OverloadedError,
    ServiceError,
    UnexpectedError,
)
from birnn_service.frontends.messages import (
    Cancel,
    Carried,
    Counts,
    Decoder,
    Done,
    Drain,
    Encode,
    Failed,
    Followed,
    Health,
    Listed,
    Listening,
    Message,
    Obstacle,
    Order,
    Refused,
    Released,
    Retired,
    Scrape,
    Scraped,
    Served,
    Setup,
    Withdrawn,
    from_wire,
    pack,
    to_wire,
)
from birnn_service.observe.spans import SpanIds
from birnn_service.queueing.priority import Priority

NUMBER = st.integers(0, 2**64 - 1)
SECONDS = st.floats(0, 1e9)
ERROR: st.SearchStrategy[ServiceError] = st.one_of(
    st.builds(OverloadedError, st.text(), SECONDS),
    st.builds(DeadlineError, st.text()),
    st.builds(InvalidRequestError, st.text()),
    st.builds(EngineError, st.text()),
)
UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
SPAN = st.builds(SpanIds, st.integers(1, 2**128 - 1), UINT64)
# Names of encoders are those of folders, and hold no NUL.
NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
MESSAGE: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Encode,
        NUMBER,
        UINT32,
        UINT64,
        UINT64,
        st.one_of(SECONDS, st.just(math.inf)),
        st.sampled_from(Priority),
        UINT64,
        st.sampled_from(Output),
        st.none() | SPAN,
        NAME,
    ),
    st.builds(Cancel, NUMBER),
    st.builds(Done, NUMBER, SECONDS, SECONDS, st.lists(SPAN, max_size=3)),
    st.builds(Failed, NUMBER, ERROR),
    st.builds(Withdrawn, NUMBER),
    st.builds(Setup, st.binary(max_size=300)),
    st.builds(Listening),
    st.builds(Refused, st.text()),
    st.builds(Health, st.dictionaries(st.tuples(st.text(), st.text()), st.text())),
    st.builds(Counts, st.binary(max_size=300)),
    st.builds(Drain),
    st.builds(Obstacle, st.text()),
    st.builds(Served, NUMBER, st.binary(max_size=300)),
    st.builds(Followed, NUMBER),
    st.builds(Retired, NUMBER),
    st.builds(Released, NUMBER),
    st.builds(Listed, st.binary(max_size=300)),
    # Of a model that a caller has made up, and which may hold any character.
    st.builds(Order, NUMBER, st.sampled_from(["load", "unload"]), st.text()),
    st.builds(Carried, NUMBER, st.one_of(st.none(), ERROR)),
    st.builds(Scrape, NUMBER),
    st.builds(Scraped, NUMBER, st.binary(max_size=300)),
)


def comparable(message: Message) -> tuple[object, ...]:
    if isinstance(message, Failed | Carried):
        error = message.error
        return (type(message), message.number, type(error), str(error), getattr(error, "retry_after", None))
    return (type(message), *message)


@settings(deadline=None)
@given(st.lists(MESSAGE, max_size=12), st.data())
def test_messages_come_back_however_the_stream_is_cut(messages: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(pack, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = Decoder()
    found: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    assert list(map(comparable, found)) == list(map(comparable, messages))


@settings(deadline=None)
@given(MESSAGE)
def test_a_message_byte_by_byte(message: Message) -> None:
    decoder = Decoder()
    raw = pack(message)
    found = [each for byte in raw for each in decoder.feed(bytes([byte]))]
    assert list(map(comparable, found)) == [comparable(message)]


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_messages_or_refused(raw: bytes) -> None:
    try:
        Decoder().feed(raw)
    except ValueError:
        return


@pytest.mark.parametrize("raw", [b"\0" * 16, b"\xff" * 16, pack(Cancel(1))[:1] + b"\xff" * 15])
def test_an_unknown_kind_or_an_absurd_size_is_refused_at_once(raw: bytes) -> None:
    with pytest.raises(ValueError, match="no message"):
        Decoder().feed(raw)


def test_no_deadline_stays_none() -> None:
    assert from_wire(to_wire(None)) is None
    assert from_wire(to_wire(12.5)) == 12.5


def test_an_error_that_messages_do_not_know_arrives_as_one_of_the_engine() -> None:
    (message,) = Decoder().feed(pack(Failed(7, UnexpectedError("a fault"))))
    assert isinstance(message, Failed)
    assert (type(message.error), str(message.error)) == (EngineError, "a fault")
