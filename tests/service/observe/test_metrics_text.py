import asyncio
import gzip
import threading
from collections.abc import Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from birnn_service.observe import metrics_text
from birnn_service.observe.metrics_text import CollectedText


class Counted(Collector):
    """Says how often it was collected, once it may."""

    def __init__(self) -> None:
        self.collected = 0
        self.may = threading.Event()
        self.may.set()
        self.fails = False

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        self.may.wait()
        self.collected += 1
        if self.fails:
            raise ValueError("no metrics")
        return [GaugeMetricFamily("collected", "How often.", value=self.collected)]


async def test_those_who_ask_at_the_same_time_share_a_text() -> None:
    counted = Counted()
    counted.may.clear()
    text = CollectedText(counted)
    asking = [asyncio.create_task(text.packed()) for _ in range(20)]
    await asyncio.sleep(0)
    # One that leaves takes nothing from the others.
    asking.pop().cancel()
    await asyncio.sleep(0)
    counted.may.set()
    (packed,) = set(await asyncio.gather(*asking))
    assert b"collected 1.0\n" in gzip.decompress(packed)
    assert counted.collected == 1


async def test_a_text_is_collected_anew_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    text = CollectedText(counted)
    first = await text.packed()
    monkeypatch.setattr(metrics_text, "KEPT_SECONDS", 3600.0)
    assert await text.packed() == first
    monkeypatch.setattr(metrics_text, "KEPT_SECONDS", -1.0)
    assert b"collected 2.0\n" in gzip.decompress(await text.packed())


async def test_a_failure_is_told_and_does_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    counted.fails = True
    text = CollectedText(counted)
    with pytest.raises(ValueError, match="no metrics"):
        await text.packed()
    counted.fails = False
    monkeypatch.setattr(metrics_text, "KEPT_SECONDS", -1.0)
    assert b"collected 2.0\n" in gzip.decompress(await text.packed())
