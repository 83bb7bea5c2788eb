from pathlib import Path

import pytest

from tests.client.fake_service import FakeService


@pytest.fixture
def folder(tmp_path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a command that is told of the service."""
    monkeypatch.setenv("BIRNN_ADDRESS", service.address)
    monkeypatch.chdir(tmp_path)
    return tmp_path
