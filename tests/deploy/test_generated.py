"""What is generated for monitoring is what it would be if it were generated now."""

from pathlib import Path

import pytest

from deploy.monitoring.files import ROOT, generated

FILES = generated()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == FILES[path], "run `make monitoring`"
