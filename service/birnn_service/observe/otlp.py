"""Where spans go, by the settings and OpenTelemetry's own variables; nothing here imports OpenTelemetry."""

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from birnn_service.errors import StartupError
from birnn_service.settings import Settings

if TYPE_CHECKING:
    from birnn_service.observe.otlp_collector import OtlpCollector

logger = logging.getLogger(__name__)

PATH = "/v1/traces"
PROTOCOL = "http/protobuf"
DISABLED, EXPORTER = "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"
ENDPOINT, TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# Variables for which this server has settings.
UNREAD = ("OTEL_TRACES_SAMPLER", "OTEL_PROPAGATORS", "OTEL_BSP_")


def otlp_url(settings: Settings) -> str | None:
    """The URL to which spans are sent; None where they are sent nowhere.

    `--otlp-endpoint` wins over the variables, except those that switch tracing off.

    Raises:
        StartupError: The variables ask for something else than OTLP over HTTP.
    """
    url, source = _wanted(settings)
    if not url:
        return None
    if os.environ.get(DISABLED, "").lower() == "true" or os.environ.get(EXPORTER, "").lower() == "none":
        logger.info("no spans are exported: %s or %s says so", DISABLED, EXPORTER)
        return None
    if source:
        _check_variables(source)
    if unread := sorted(name for name in os.environ if name.startswith(UNREAD)):
        logger.warning("%s is set, and not read: see --trace-ratio and the settings beside it", ", ".join(unread))
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise StartupError(f"{source or '--otlp-endpoint'} must be a URL of http or https, such as http://HOST:4318")
    return url


def open_collector(url: str, process: str) -> "OtlpCollector":
    """What sends the spans of a process to a URL.

    Raises:
        StartupError: OpenTelemetry is not installed, or its variables cannot be used.
    """
    try:
        module = import_module("birnn_service.observe.otlp_collector")
    except ImportError as error:
        raise StartupError(
            f"spans are to be exported (--otlp-endpoint or {ENDPOINT}), which needs OpenTelemetry: "
            f"pip install 'birnn-serving[otel]' ({error})"
        ) from error
    try:
        collector: OtlpCollector = module.OtlpCollector(url, process)
    except (ValueError, OSError, RuntimeError) as error:
        raise StartupError(f"spans cannot be exported as OpenTelemetry's variables (OTEL_*) say: {error}") from error
    return collector


def _wanted(settings: Settings) -> tuple[str, str]:
    """The URL that is asked for, and the variable that does; both may be empty."""
    if settings.otlp_endpoint:
        return _with_path(settings.otlp_endpoint), ""
    if url := os.environ.get(TRACES_ENDPOINT):
        return url, TRACES_ENDPOINT
    url = os.environ.get(ENDPOINT, "")
    return (_with_path(url), ENDPOINT) if url else ("", "")


def _with_path(endpoint: str) -> str:
    endpoint = endpoint.rstrip("/")
    return endpoint if endpoint.endswith(PATH) else endpoint + PATH


def _check_variables(source: str) -> None:
    """Refuse what the variables ask for beside an endpoint, and this server does not do."""
    protocol = next(filter(None, map(os.environ.get, PROTOCOLS)), PROTOCOL)
    if protocol != PROTOCOL:
        raise StartupError(
            f"{source} is set with the protocol {protocol}, and this server sends OTLP as {PROTOCOL}, usually to port "
            f"4318; set {PROTOCOLS[1]}={PROTOCOL}, give --otlp-endpoint, or switch traces off by {DISABLED}=true"
        )
    exporter = os.environ.get(EXPORTER, "otlp")
    if exporter != "otlp":
        raise StartupError(f"{EXPORTER} is {exporter}, and this server knows `otlp` and `none`")
