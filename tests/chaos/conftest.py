"""Marks every test here as chaos, which `make chaos` runs, and prints the table at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.outcomes import ATTACKS, table
from tests.e2e.server_process import ServerProcess, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, unless it says that `make test` can afford it (`quick`)."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("quick") is None:
            item.add_marker(pytest.mark.chaos)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what became of all calls."""
    if ATTACKS:
        terminalreporter.write_line("\n" + table())


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server as it is shipped."""
    with running() as server:
        yield server
