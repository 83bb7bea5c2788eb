"""A front-end follows what the engine process says is served."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.catalog import Catalog
from birnn_service.engine.engine import EngineInfo
from birnn_service.frontends.following import Following
from birnn_service.frontends.front_end import FrontEnd
from birnn_service.frontends.messages import Followed, Health, Message, Released, Retired, Served, Setup
from birnn_service.frontends.setup import RemoteEncoder, write_encoder
from birnn_service.observe.metrics import Metrics
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics

MODELS = Path(__file__).parents[3] / "models"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="front-ends exist on Linux")
INFO = EngineInfo("fake", "cpu", "float32", 1, 1, True)


def encoder(name: str) -> RemoteEncoder:
    bundle = Bundle.load(MODELS / name / "1")
    return RemoteEncoder(bundle.manifest, bundle.tokenizer, INFO)


async def test_an_encoder_that_was_replaced_before_a_front_end_started_is_no_news_to_it() -> None:
    before, served, new = encoder("smiles"), encoder("smiles"), encoder("text")
    encoders = Catalog([served])
    sent: asyncio.Queue[Message] = asyncio.Queue()
    following = Following(encoders, Statistics(encoders), ServingState(), Metrics(), sent.put_nowait)
    run = asyncio.create_task(following.run())
    following.tell(Retired(before.instance))
    following.tell(Served(new.instance, write_encoder(new, 1)))
    assert [await sent.get() for _ in range(3)] == [
        Followed(before.instance),
        Released(before.instance),
        Followed(new.instance),
    ]
    assert encoders.find("text", "").instance == new.instance
    assert encoders.find("smiles", "") is served
    run.cancel()


async def started(first: Message, ended: asyncio.Event) -> FrontEnd:
    """A front-end that hears this message first."""
    nothing: Any = None
    front_end = FrontEnd(1, 1, nothing, Catalog[RemoteEncoder](), nothing, Metrics(), nothing, ended.set)
    statistics = Statistics((), 2)
    assert statistics.descriptor is not None
    await front_end.start(1 << 20, statistics.descriptor, lambda: first)  # type: ignore[arg-type,return-value]
    return front_end


@LINUX
async def test_nobody_waits_for_a_front_end_that_has_ended() -> None:
    ended = asyncio.Event()
    # Without a setup it has nothing to serve.
    front_end = await started(Setup(b""), ended)
    before = front_end.owes(Followed, 1)
    await ended.wait()
    await asyncio.gather(before, front_end.owes(Followed, 2), front_end.owes(Released, 2))
    assert await front_end.wait(60) == "exit status 1"


@LINUX
async def test_nobody_waits_for_a_front_end_that_hangs_before_it_takes_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birnn_service.frontends.front_end.START_SECONDS", 0.1)
    # It waits for its setup.
    front_end = await started(Health({}), asyncio.Event())
    answer = front_end.owes(Followed, 1)
    assert await front_end.wait(60) == "it does not take calls after 0.1 s"
    await answer
