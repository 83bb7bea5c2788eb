"""What the processes of a server take."""

import re
from contextlib import suppress
from pathlib import Path

from tests.e2e.server_process import ServerProcess


def resident(server: ServerProcess) -> float:
    """Memory that the server's processes take now, in MiB."""
    return _memory(server, "VmRSS")


def peak(server: ServerProcess) -> float:
    """Most memory that they have taken, each at its worst moment, in MiB."""
    return _memory(server, "VmHWM")


def children(server: ServerProcess) -> list[int]:
    """Processes that the server has started. Threads that end meanwhile have none."""
    found: list[int] = []
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _memory(server: ServerProcess, field: str) -> float:
    total = 0
    for pid in (server.process.pid, *children(server)):
        # One that has ended meanwhile takes nothing.
        with suppress(FileNotFoundError, ProcessLookupError):
            found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            total += int(found[1]) if found else 0
    return total / 1024
