"""What one process takes of its machine."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from birnn_service.memory import resident_memory
from birnn_service.observe.metrics import Metrics

if sys.platform != "win32":
    import resource

DESCRIPTORS = Path("/proc/self/fd")


def read_process(metrics: Metrics) -> None:
    """Let `metrics` read what this process takes; what the system does not say is left out."""

    def descriptors() -> dict[tuple[str, ...], float]:
        with suppress(OSError):
            return {(metrics.process,): len(os.listdir(DESCRIPTORS))}
        return {}

    metrics.process_cpu_seconds.read_one(time.process_time, metrics.process)
    if resident_memory():
        metrics.process_resident_bytes.read_one(resident_memory, metrics.process)
    metrics.process_descriptors.read_by(descriptors)
    if sys.platform != "win32":
        metrics.process_descriptors_limit.read_one(
            lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0], metrics.process
        )
