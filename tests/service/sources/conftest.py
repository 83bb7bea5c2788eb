from collections.abc import Iterator

import pytest

from tests.service.sources.object_server import ObjectServer, object_server
from tests.service.sources.small_bundle import SMALL_FILES


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """A store with one bundle, which the variables of S3 name."""
    with object_server() as server:
        server.upload(SMALL_FILES.parent, "smiles-small/")
        monkeypatch.setenv("AWS_ENDPOINT", server.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield server
