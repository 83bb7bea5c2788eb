"""What a benchmark ran on, for its report."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# The repository itself, for `bench`, and its source roots: what a process started elsewhere must find.
SOURCES = [ROOT, *(ROOT / name for name in ("client", "bundle", "export", "native", "service", "loadtest"))]
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


class ForeignLoad:
    """CPU time that processes which were there before a benchmark's own take meanwhile: a measure of disturbance."""

    def __init__(self) -> None:
        self._pids = _processes() - {os.getpid()}
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._cpu, self._time = self._seconds(), time.monotonic()

    def cores(self) -> float:
        """Cores' worth of time that they have taken since; those that have ended meanwhile count as idle."""
        return max(0.0, self._seconds() - self._cpu) / max(time.monotonic() - self._time, 1e-9)

    def _seconds(self) -> float:
        return sum(_cpu_seconds(pid) for pid in self._pids)


def _processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()}


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process; 0 where it has ended (fields 14 and 15 of proc_pid_stat(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
