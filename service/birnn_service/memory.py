"""How much memory this process may use, and how much it does."""

import ctypes
import os
import sys
from pathlib import Path

from birnn_service.engine.cores import CGROUP

STATM = Path("/proc/self/statm")


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that this process may take: those of the machine, or fewer where a container has a limit.

    Args:
        cgroup: Where the control group of this process is mounted; its limit is read as of version 2 (`memory.max`) or
            1 (`memory/memory.limit_in_bytes`).
    """
    machine = _machine()
    for file in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        try:
            return min(machine, int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no control groups here, or "max": no limit
            continue
    return machine


def resident_memory(statm: Path = STATM) -> int:
    """Bytes of memory that this process takes now; 0 where the system does not say."""
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def give_back_memory() -> None:
    """Give memory that is free back to the system, which glibc keeps otherwise; elsewhere nothing is done."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _machine() -> int:
    """Bytes of memory of the machine; as much as pods usually get where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2 << 30
