from collections.abc import Iterator

import pytest

from birnn import Client
from tests.client.fake_service import FakeService, serving


@pytest.fixture
def service() -> Iterator[FakeService]:
    with serving() as service:
        yield service


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with Client(service.address, batch_size=16) as client:
        yield client
