"""The span of a batch and the calls that it serves name each other."""

import asyncio
from collections.abc import Sequence

import pytest

from birnn_service.errors import EngineError
from birnn_service.observe.batch_spans import BatchSpans
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.spans import MOST_LINKS, FinishedSpan, SpanIds
from birnn_service.observe.tracing import Tracing
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.settings_reader import load_settings
from tests.service.queueing.sum_engine import SumEngine, batch_of, begun, lane_of


class Kept(Tracing):
    """Keeps what it would send."""

    def __init__(self, spans_per_second: float = 1000.0) -> None:
        class Nowhere:
            def send(self, spans: Sequence[FinishedSpan]) -> str:
                raise AssertionError("it is not started")

            def stop(self) -> None: ...

        super().__init__(Nowhere(), load_settings({"trace_spans_per_second": spans_per_second}), Metrics())
        self.spans: list[FinishedSpan] = []

    def export(self, spans: Sequence[FinishedSpan]) -> None:
        self.spans += spans


def dispatcher_of(engine: SumEngine, tracing: Tracing) -> Dispatcher:
    return Dispatcher([lane_of(engine)], engine.info.slots, observers=[BatchSpans(tracing)])


async def test_calls_that_share_a_batch_link_to_it_and_it_to_them() -> None:
    engine, tracing = SumEngine(slots=1), Kept()
    dispatcher = dispatcher_of(engine, tracing)
    (lane,) = dispatcher.lanes
    one, other = SpanIds.root(), SpanIds.root()
    engine.gate.clear()
    blocking = await begun(dispatcher.encode(lane, batch_of([9]), caller="a"))
    calls = [
        await begun(dispatcher.encode(lane, batch_of([1, 2], [3]), caller="a", span=one)),
        await begun(dispatcher.encode(lane, batch_of([4]), caller="b", span=other)),
        await begun(dispatcher.encode(lane, batch_of([5]), caller="c")),
    ]
    engine.gate.set()
    computed = await asyncio.gather(*calls)
    await blocking
    (span,) = tracing.spans
    assert set(span.links) == {one, other}
    assert [list(each.batches) for each in computed] == [[span.ids], [span.ids], []]
    attributes = span.attributes or {}
    assert (attributes["birnn.encoder"], attributes["birnn.version"]) == ("sum", "7")
    assert (attributes["birnn.batch.calls"], attributes["birnn.batch.sequences"]) == (3, 4)
    assert (attributes["birnn.batch.tokens"], attributes["birnn.batch.omitted_links"]) == (5, 0)
    assert span.started <= span.ended
    dispatcher.close()


async def test_a_call_that_shares_a_row_of_another_is_linked_too() -> None:
    engine, tracing = SumEngine(slots=1), Kept()
    dispatcher = dispatcher_of(engine, tracing)
    (lane,) = dispatcher.lanes
    follower = SpanIds.root()
    engine.gate.clear()
    first = await begun(dispatcher.encode(lane, batch_of([1, 2]), caller="a"))
    second = await begun(dispatcher.encode(lane, batch_of([1, 2]), caller="a", span=follower))
    engine.gate.set()
    await first
    found = await second
    assert engine.batches == [[[1, 2]]]
    (span,) = tracing.spans
    assert list(span.links) == [follower]
    assert list(found.batches) == [span.ids]
    dispatcher.close()


async def test_links_are_bounded_and_those_left_out_are_told() -> None:
    engine, tracing = SumEngine(slots=1), Kept()
    engine.info = type(engine.info)("sum", "cpu", "float32", 1, max_rows=100, parallel_slots=True)
    dispatcher = dispatcher_of(engine, tracing)
    (lane,) = dispatcher.lanes
    engine.gate.clear()
    blocking = await begun(dispatcher.encode(lane, batch_of([99]), caller="a"))
    calls = [
        await begun(dispatcher.encode(lane, batch_of([number]), caller="a", span=SpanIds.root()))
        for number in range(MOST_LINKS + 5)
    ]
    engine.gate.set()
    await asyncio.gather(blocking, *calls)
    attributes = [span.attributes or {} for span in tracing.spans]
    assert all(len(span.links) <= MOST_LINKS for span in tracing.spans)
    linked = sum(len(span.links) for span in tracing.spans)
    omitted = sum(int(str(each["birnn.batch.omitted_links"])) for each in attributes)
    assert linked + omitted == MOST_LINKS + 5
    assert omitted == 5
    dispatcher.close()


async def test_a_batch_that_fails_says_so_by_its_kind_alone() -> None:
    engine, tracing = SumEngine(), Kept()
    dispatcher = dispatcher_of(engine, tracing)
    (lane,) = dispatcher.lanes
    with pytest.raises(EngineError):
        await dispatcher.encode(lane, batch_of([666]), caller="a", span=SpanIds.root())
    (span,) = tracing.spans
    assert span.failure == "RuntimeError"
    dispatcher.close()


async def test_batches_of_calls_that_are_not_traced_have_no_span_and_others_not_beyond_the_rate() -> None:
    engine, tracing = SumEngine(), Kept(spans_per_second=1e-6)
    dispatcher = dispatcher_of(engine, tracing)
    (lane,) = dispatcher.lanes
    assert (await dispatcher.encode(lane, batch_of([1]), caller="a")).batches == ()
    assert tracing.spans == []
    found = [await dispatcher.encode(lane, batch_of([number]), caller="a", span=SpanIds.root()) for number in range(10)]
    assert [len(each.batches) for each in found] == [1] * 6 + [0] * 4
    assert len(tracing.spans) == 6
    dispatcher.close()
