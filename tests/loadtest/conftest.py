from collections.abc import Iterator

import pytest

from tests.client.fake_service import FakeService, serving


@pytest.fixture
def service() -> Iterator[FakeService]:
    with serving() as service:
        yield service
