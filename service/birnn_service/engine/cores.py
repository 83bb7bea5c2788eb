"""The cores of this process: how many it may use, and who goes first."""

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
# Threads that compute have a third of the event loop's weight where both want the same core.
NICENESS = 5


def yield_to_event_loop() -> None:
    """Lower the priority of the calling thread, so that the event loop goes first where all cores are busy.

    Linux only: elsewhere priorities belong to the whole process.
    """
    if sys.platform == "linux":
        os.nice(NICENESS)


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores of this process: those it may be scheduled on, or fewer where a container has a share of them.

    Args:
        cgroup: Where the control group of this process is mounted; its CPU quota is read as of version 2 (`cpu.max`) or
            1 (`cpu.cfs_quota_us`). A quota of 1.5 cores counts as 2.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that the control group grants; None where it sets no limit or cannot be read."""
    try:
        if (cgroup / "cpu.max").is_file():
            limit, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        else:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text(encoding="ascii")
        quota = float(limit) / float(period)
    except (OSError, ValueError):  # no control groups here, or "max": no limit
        return None
    return quota if quota > 0 else None
