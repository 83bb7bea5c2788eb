from pathlib import Path

import pytest

from tests.service.access.callers import FILE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_bytes(FILE)
    return path
