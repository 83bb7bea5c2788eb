"""What a benchmark ran on, for its report."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# The repository itself, for `bench`, and its source roots: what a process started elsewhere must find.
SOURCES = [ROOT, *(ROOT / name for name in ("client", "bundle", "export", "native", "service", "loadtest", "bulk"))]
PYTHONPATH = os.pathsep.join(map(str, SOURCES))
PACKAGES = ("birnn-serving", "grpcio", "numpy", "onnxruntime", "tokenizers", "torch", "uvloop")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, system, versions, commit and the load that other programs put on the machine now."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _installed(name))},
        "commit": _commit(),
        "load_average": os.getloadavg()[0],
    }


def cpu_model() -> str:
    """The processor's name; where the system hides it behind a brand, with family and model number."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.machine())
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts.get('model', '?')})"
    return name


def on_cores(cores: Sequence[int]) -> list[str]:
    """What to put before a command so that it runs on these cores only."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores))]


def parents() -> dict[int, int]:
    """The processes that there are, and their parents."""
    found = {}
    for pid in _processes():
        if fields := _status(pid):
            found[pid] = int(fields[1])
    return found


def process_seconds(pid: int) -> float:
    """User and system time of a process; 0 where it has ended."""
    fields = _status(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()}


def _status(pid: int) -> list[str]:
    """Fields of proc_pid_stat(5) from the third on; none where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that is checked out, with a + where files differ from it; None outside a repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
