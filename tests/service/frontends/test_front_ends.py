import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.catalog import Encoders
from birnn_service.engine.engine import EngineInfo
from birnn_service.frontends import front_ends
from birnn_service.frontends.front_ends import FrontEnds
from birnn_service.frontends.messages import Health, Message
from birnn_service.frontends.setup import RemoteEncoder
from birnn_service.observe.metrics import Metrics
from birnn_service.settings_reader import load_settings
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics

MODELS = Path(__file__).parents[3] / "models"
UNHEALTHY = {("smiles", "1"): "it gives wrong numbers"}


class FakeFrontEnd:
    """A front-end that takes its time to start, and keeps what it is told."""

    starting: Callable[[], None]
    all: "list[FakeFrontEnd]"

    def __init__(self, number: int, *_: object) -> None:
        self.number = number
        self.obstacle = ""
        self.listening = asyncio.Event()
        self.told: list[Message] = []
        self.ended = asyncio.Event()
        FakeFrontEnd.all.append(self)

    async def start(self, memory: int, statistics: int, *messages: Message) -> None:
        await asyncio.sleep(0.01)
        FakeFrontEnd.starting()
        await asyncio.sleep(0.01)
        for message in messages:
            self.send(message)
        self.listening.set()

    def send(self, message: Message) -> None:
        self.told.append(message)

    async def wait(self, silence: float) -> str:
        await self.ended.wait()
        return "killed"

    def kill(self) -> None:
        self.ended.set()


@pytest.mark.skipif(sys.platform != "linux", reason="front-ends exist on Linux")
async def test_a_front_end_hears_of_health_that_changes_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    state, metrics = ServingState(), Metrics()
    state.start()
    monkeypatch.setattr(front_ends, "FrontEnd", FakeFrontEnd)
    FakeFrontEnd.all = []
    FakeFrontEnd.starting = staticmethod(lambda: state.set_unhealthy(UNHEALTHY))
    bundle = Bundle.load(MODELS / "smiles" / "1")
    info = EngineInfo("fake", "cpu", "float32", 1, 1, True)
    encoders = Encoders([RemoteEncoder(bundle.manifest, bundle.tokenizer, info)], {})
    settings = load_settings({"frontends": 1, "grpc_port": 0})
    compute: Any = None
    orders: Any = None
    async with FrontEnds(encoders, compute, orders, state, settings, metrics, Statistics(encoders, 2)) as front:
        await front.listen()
        (found,) = FakeFrontEnd.all
        told = [message for message in found.told if isinstance(message, Health)]
        assert told[-1].unhealthy == UNHEALTHY
