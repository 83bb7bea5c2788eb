"""What becomes of calls that are checked."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sized
from pathlib import Path
from typing import Any

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.call import Call, Feed, Method
from birnn_service.catalog import Encoders
from birnn_service.endpoint import Endpoint
from birnn_service.engine.engine import EngineInfo
from birnn_service.errors import ForbiddenError, ServiceError, UnauthenticatedError
from birnn_service.frontends.setup import RemoteEncoder
from birnn_service.observe.metrics import Metrics
from birnn_service.settings_reader import load_settings
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from birnn_service.token_file import Right
from tests.service.access.callers import GATEWAY, LAB, Arrived, access_of, bearer

MODELS = Path(__file__).parents[3] / "models"


def endpoint_of(path: Path) -> tuple[Endpoint, Metrics]:
    bundle = Bundle.load(MODELS / "smiles" / "1")
    info = EngineInfo("fake", "cpu", "float32", 1, 1, True)
    metrics, encoders = Metrics(), Encoders([RemoteEncoder(bundle.manifest, bundle.tokenizer, info)], {})
    endpoint = Endpoint(encoders, ServingState(), load_settings({}), metrics, Statistics(encoders), access_of(path))
    return endpoint, metrics


def test_a_call_that_is_refused_is_not_read_and_is_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    endpoint, metrics = endpoint_of(path)

    async def answer(request: Any, call: Call) -> bytes:
        raise AssertionError("not read, not answered")

    async def replies(request: Any) -> AsyncIterator[bytes]:
        raise AssertionError("not read, not answered")
        yield b""

    async def follow(incoming: Arrived) -> None:
        async for _ in endpoint.feed(Feed("Follow", bytes, replies, Right.ADMIN), incoming):
            pass

    async def refused(incoming: Arrived) -> list[type[ServiceError]]:
        method = Method("Unload", bytes, answer, lambda asked: ("", ""), right=Right.ADMIN)
        errors = []
        for call in (endpoint.answer(method, incoming), follow(incoming)):
            with pytest.raises(ServiceError) as caught:
                await call
            errors.append(caught.type)
        return errors

    with caplog.at_level(logging.DEBUG, logger="birnn_service"):
        assert asyncio.run(refused(Arrived())) == [UnauthenticatedError] * 2
        assert asyncio.run(refused(bearer(GATEWAY))) == [ForbiddenError] * 2
    for code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        labels = {"encoder": "", "version": "", "method": "Unload", "code": code}
        assert metrics.registry.get_sample_value("birnn_requests_total", labels) == 1
    assert "Unload of ipv4:192.0.2.1 failed" in caplog.text
    assert GATEWAY not in caplog.text


def test_a_call_is_its_holders_wherever_it_comes_from(path: Path) -> None:
    class Readable(Arrived):
        async def read(self, grow: Callable[[int], None]) -> Sized:
            assert self.caller == "name:lab"
            return b""

    endpoint, _ = endpoint_of(path)

    async def answer(request: Any, call: Call) -> str:
        return call.caller

    incoming = Readable(authorization=f"Bearer {LAB}")
    assert asyncio.run(endpoint.answer(Method("Name", bytes, answer), incoming)) == "name:lab"
