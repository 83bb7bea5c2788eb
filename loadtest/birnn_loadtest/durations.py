"""Durations and shares as people write them on a command line: 20ms, 1.5s, 0.1%."""

import math
import re

_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}


def read_duration(text: str) -> float:
    """Seconds, above 0.

    Raises:
        ValueError: It is no duration; says what to write.
    """
    number, unit = _parts(text)
    if number is None or unit not in _UNITS:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit: 250us, 20ms, 1.5s or 2min")
    seconds = number * _UNITS[unit]
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is not a duration above 0")
    return seconds


def read_share(text: str) -> float:
    """A share from 0 to 1, written as 0.1% or 0.001.

    Raises:
        ValueError: It is no share; says what to write.
    """
    number, unit = _parts(text)
    if number is None or unit not in ("", "%"):
        raise ValueError(f"{text!r} is not a share; write 0.1% or 0.001")
    share = number / 100 if unit else number
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is not a share between 0 and 1 (100%)")
    return share


def read_number(text: str) -> float:
    """A plain number from 0.

    Raises:
        ValueError: It is none.
    """
    number, unit = _parts(text)
    if number is None or unit or not math.isfinite(number):
        raise ValueError(f"{text!r} is not a number")
    return number


def duration(seconds: float) -> str:
    """Seconds for reading, with three digits: 250us, 20ms, 1.5s."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.3g}us"
    return f"{seconds * 1e3:.3g}ms" if seconds < 0.9995 else f"{seconds:.4g}s"


def share(value: float) -> str:
    """A share for reading: 0.1%."""
    return f"{value * 100:.3g}%"


def _parts(text: str) -> tuple[float | None, str]:
    match = _NUMBER.match(text := text.strip())
    return (None, "") if match is None else (float(match[0]), text[match.end() :].strip())
