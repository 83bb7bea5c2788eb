"""What the load came from: the generator's machine and its versions."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Machine:
    """The generator's machine.

    Attributes:
        processor: Its model.
        cores: Cores that this process may use.
        system: Operating system and kernel.
        python: Version of Python.
        versions: Of the packages that send the calls.
    """

    processor: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]

    @classmethod
    def this(cls) -> "Machine":
        """The one that this runs on."""
        packages = ("birnn-serving", "grpcio", "aiohttp", "hdrhistogram")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(
            _processor(), cores, f"{platform.system()} {platform.release()}", platform.python_version(),
            {name: version(name) for name in packages},
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
