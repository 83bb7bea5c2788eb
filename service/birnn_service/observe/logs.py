"""The log of a process, as text or as JSON: one record a line, whatever callers put into names and ids."""

import json
import logging
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from birnn_bundle.quoting import one_line, printable
from birnn_service.call import Arrived
from birnn_service.observe.notes import Notes
from birnn_service.observe.traceparent import read_traceparent
from birnn_service.settings import Settings

FIELDS = "fields"
"""The key of `extra` for what a line says beside its message: names and values."""
# Longest id of a request in a line.
MOST_CHARACTERS = 200
INDENT = "    "


def start_logging(settings: Settings, process: str) -> None:
    """Have this process log to its standard error.

    Args:
        settings: In which form, and from which level on.
        process: Its name; that of the process with the engines is left out of text.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if settings.log_format == "json" else TextLines(process))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])


def log_uncaught() -> None:
    """Log warnings of Python and exceptions that nothing catches, which it would write as it likes."""
    logging.captureWarnings(True)
    logger = logging.getLogger(__name__)

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            logger.critical("an error that nothing caught ends this process", exc_info=(kind, error, trace))

    def in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
            logger.critical("a thread ended by an error that nothing caught", exc_info=found.exc_value)

    def unraisable(found: "sys.UnraisableHookArgs") -> None:
        logger.error("an error could not be raised: %s", found.err_msg or "", exc_info=found.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, unraisable


def ids_of(incoming: Arrived, notes: Notes | None) -> dict[str, object]:
    """By what a call is found: `request_id`, `trace_id` and `span_id`, as far as it has them."""
    found: dict[str, object] = {}
    if incoming.request_id:
        found["request_id"] = one_line(incoming.request_id, MOST_CHARACTERS)
    if notes is not None and notes.ids is not None:
        found |= {"trace_id": notes.ids.trace_text, "span_id": notes.ids.span_text}
    elif (parent := read_traceparent(incoming.traceparent)) is not None:
        found["trace_id"] = parent.trace
    return found


class TextLines(logging.Formatter):
    """Lines for people: time, level, message, and what else there is to say as NAME=VALUE.

    Every record begins with its time, and what follows on further lines, tracebacks, is indented. So no caller can
    write a line that looks like a record.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        kind, _, number = process.partition("-")
        self._process = f"front-end {number}: " if kind == "frontend" else ""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines, of a record."""
        line = f"{self.formatTime(record)} {record.levelname} {self._process}{printable(record.getMessage(), keep='')}"
        fields = "".join(f" {name}={_value(value)}" for name, value in _fields(record).items())
        further = "".join(f"\n{INDENT}{printable(text, keep='')}" for text in self._trace(record).splitlines())
        return line + fields + further

    def _trace(self, record: logging.LogRecord) -> str:
        texts = [self.formatException(record.exc_info) if record.exc_info else "", record.stack_info or ""]
        return "\n".join(filter(None, texts))


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        # ASCII, so that no encoding of the standard error, and no half of a surrogate pair, is in its way.
        return json.dumps({name: _plain(value) for name, value in entry.items()})


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, FIELDS, {})
    return fields


def _plain(value: object) -> object:
    """A value that JSON has; of text, what terminals might obey is escaped, but for line breaks and tabs."""
    return value if isinstance(value, int | float) else printable(str(value))


def _value(value: object) -> str:
    """A value on a line of text: quoted where it holds more than letters, digits and a few signs."""
    text = printable(str(value), keep="")
    return text if text and not set(text) & set(' "=\\') else json.dumps(text, ensure_ascii=False)
