"""What the processes of a server take."""

import re
from pathlib import Path

from tests.e2e.server_process import ServerProcess


def resident(server: ServerProcess) -> float:
    """Memory that the server's processes take now, in MiB."""
    return _memory(server, "VmRSS")


def peak(server: ServerProcess) -> float:
    """Most memory that they have taken, each at its worst moment, in MiB."""
    return _memory(server, "VmHWM")


def _memory(server: ServerProcess, field: str) -> float:
    pids = [server.process.pid]
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        pids += [int(child) for child in (task / "children").read_text().split()]
    status = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(found[1]) for text in status if (found := re.search(rf"{field}:\s+(\d+) kB", text))) / 1024
