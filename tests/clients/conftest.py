"""One server for all clients, and the table at the end of what became of their calls."""

from collections.abc import Callable, Generator, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import birnn
from tests.clients.table import ROWS, add, table
from tests.e2e.server_process import MODELS, ServerProcess, running

# The fixtures `ours` and pytest's `record_property`.
Encode = Callable[..., NDArray[np.float32]]
Record = Callable[[str, object], None]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a row of each test that is marked as one."""
    report = yield
    mark = item.get_closest_marker("clients")
    if mark is not None and (report.when == "call" or not report.passed):
        add(mark, report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if ROWS:
        terminalreporter.write_line("\n" + table())


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server as it is shipped in the images: with HTTP."""
    with running(MODELS, "--http-port", "0") as server:
        yield server


@pytest.fixture(scope="session")
def ours(server: ServerProcess) -> Iterator[Encode]:
    """What our own client gets for the same strings: `ours(["CCO"], "smiles")`."""
    with birnn.Client(server.address) as client:
        yield client.encode
