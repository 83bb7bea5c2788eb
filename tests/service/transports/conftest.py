import asyncio
from collections.abc import Callable, Mapping

import pytest

from birnn_service.transports import http_connection
from tests.service.transports.clock import PATIENCE_SECONDS, ForwardLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Servers run on uvloop, as in production: loops differ in how they write and close."""
    return {"uvloop": ForwardLoop}


@pytest.fixture(autouse=True)
def patient_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give callers time to read why they are refused, however slow the machine is."""
    monkeypatch.setattr(http_connection, "LINGER_SECONDS", PATIENCE_SECONDS)
