import asyncio
from collections.abc import Callable, Mapping

import pytest

from birnn_service.errors import StartupError
from birnn_service.settings import Settings
from birnn_service.settings_reader import load_settings
from birnn_service.transports import http_connection
from tests.service.transports.clock import PATIENCE_SECONDS, ForwardLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Servers run on uvloop, as in production: loops differ in how they write and close."""
    return {"uvloop": ForwardLoop}


@pytest.fixture
def on_ipv6() -> Settings:
    """Settings of a server that listens on this machine's address of IPv6."""
    settings = load_settings({"host": "::1", "grpc_port": 0})
    try:
        settings.grpc_address.check()
    except StartupError:
        pytest.skip("this machine has no ::1")
    return settings


@pytest.fixture(autouse=True)
def patient_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give callers time to read why they are refused, however slow the machine is."""
    monkeypatch.setattr(http_connection, "LINGER_SECONDS", PATIENCE_SECONDS)
