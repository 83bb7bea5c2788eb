"""docs/clients.md and the tests that run it."""

import re
from pathlib import Path

from tests.clients.recipes import blocks

RUN = re.compile(r'\brecipe\("([^"]+)", "([^"]+)"')


def test_every_block_of_the_document_is_run_and_no_other() -> None:
    sources = (path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert {found for source in sources for found in RUN.findall(source)} == set(blocks()) != set()
