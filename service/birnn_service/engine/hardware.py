"""The names of what computes here."""

import platform
import re
from pathlib import Path


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """The processor; None where the system does not say."""
    try:
        found = re.search(
            r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
        )
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or None


def gpu_names(driver: Path = Path("/proc/driver/nvidia/gpus")) -> str | None:
    """Models of the GPUs, as NVIDIA's driver for Linux tells them; None where it does not."""
    models = []
    for path in sorted(driver.glob("*/information")):
        try:
            found = re.search(r"^Model:\s*(.+)$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        except OSError:
            return None
        models.append(found[1].strip() if found else "")
    return ", ".join(models) or None
