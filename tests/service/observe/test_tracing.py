"""Spans on their way out: what is bounded, and what is counted."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from birnn_service.observe.metrics import Metrics
from birnn_service.observe.spans import FinishedSpan, SpanIds
from birnn_service.observe.tracing import BATCH_SPANS, CALL_SPANS, Tracing
from birnn_service.settings_reader import load_settings
from tests.service.observe.counting import counted


class Fake:
    """A collector that answers as it is told, once its gate is open."""

    def __init__(self) -> None:
        self.failure = ""
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.spans: list[FinishedSpan] = []
        self.stopped = False

    def send(self, spans: Sequence[FinishedSpan]) -> str:
        self.asked.set()
        self.gate.wait()
        if self.error is not None:
            raise self.error
        if not self.failure:
            self.spans += spans
        return self.failure

    def stop(self) -> None:
        self.stopped = True


def tracing_of(collector: Fake, metrics: Metrics, **settings: Any) -> Tracing:
    tracing = Tracing(collector, load_settings(settings), metrics)
    tracing.start()
    return tracing


def spans(count: int) -> list[FinishedSpan]:
    return [FinishedSpan("one", SpanIds.root(), 1, 2) for _ in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - no one tells
            await asyncio.sleep(0.01)


async def test_all_spans_arrive_in_their_order_and_are_counted() -> None:
    collector, metrics = Fake(), Metrics()
    tracing = tracing_of(collector, metrics)
    sent = spans(3 * BATCH_SPANS + 5)
    for span in sent:
        tracing.export([span])
    await tracing.close()
    assert collector.spans == sent
    assert counted(metrics, "birnn_spans_exported_total") == len(sent)
    assert counted(metrics, "birnn_spans_dropped_total") == 0


async def test_a_collector_that_hangs_delays_nothing_and_the_queue_stays_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    collector, metrics = Fake(), Metrics()
    collector.gate.clear()
    tracing = tracing_of(collector, metrics, trace_queue_spans=10, trace_flush_seconds=0.01)
    tracing.export(spans(BATCH_SPANS // 10))
    await until(collector.asked.is_set)
    under_way = BATCH_SPANS // 10
    tracing.export(spans(6))
    # Spans of one trace go together, or not at all.
    tracing.export(spans(6))
    assert counted(metrics, "birnn_spans_dropped_total", reason="queue") == 6
    await tracing.close()
    await until(lambda: counted(metrics, "birnn_spans_dropped_total", reason="shutdown") == under_way + 6)
    assert collector.stopped
    assert "were not exported within 0.01 s (--trace-flush-seconds)" in caplog.text
    collector.gate.set()
    await asyncio.to_thread(tracing._thread.join)
    assert len(collector.spans) == under_way


def dropped(metrics: Metrics, spans: int) -> Callable[[], bool]:
    return lambda: counted(metrics, "birnn_spans_dropped_total", reason="export") == spans


@pytest.mark.parametrize("failure", ["it says no", ConnectionError("it says no")])
async def test_failures_are_counted_and_logged_once_until_it_works_again(
    failure: str | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    collector, metrics = Fake(), Metrics()
    if isinstance(failure, str):
        collector.failure = failure
    else:
        collector.error = failure
    tracing = tracing_of(collector, metrics)
    with caplog.at_level(logging.INFO):
        for count in (1, 2):
            tracing.export(spans(BATCH_SPANS))
            await until(dropped(metrics, count * BATCH_SPANS))
        assert caplog.text.count("it says no") == 1
        collector.failure, collector.error = "", None
        tracing.export(spans(BATCH_SPANS))
        await until(lambda: counted(metrics, "birnn_spans_exported_total") == BATCH_SPANS)
        assert caplog.text.count("spans are exported again") == 1
    await tracing.close()


async def test_what_the_rate_does_not_allow_is_counted() -> None:
    metrics = Metrics()
    tracing = tracing_of(Fake(), metrics, trace_spans_per_second=1e-6)
    assert tracing.admits(CALL_SPANS)
    assert not tracing.admits(CALL_SPANS)
    assert counted(metrics, "birnn_spans_dropped_total", reason="rate") == CALL_SPANS
    await tracing.close()
