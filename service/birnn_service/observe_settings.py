"""Settings of what operators see: logs and traces."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from birnn_bundle.quoting import shown
from birnn_service.setting_types import Count, Seconds

Ratio = Annotated[float, Field(ge=0, le=1)]


class ObserveSettings(BaseModel):
    """What is logged and traced."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level to log.")
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the log: text, or one JSON object per line for log collectors."
    )
    access_log: Ratio = Field(
        0.0,
        title="RATIO",
        description="Share of calls that get a line in the log when they end, between 0 and 1. It names their callers "
        "and never holds sequences.",
    )
    otlp_endpoint: str | None = Field(
        None,
        description="URL of an OpenTelemetry collector that accepts traces as OTLP over HTTP, such as "
        "http://127.0.0.1:4318. Needs the extra `otel`. By default the value of OTEL_EXPORTER_OTLP_ENDPOINT. Without "
        "either, nothing is traced.",
    )
    trace_ratio: Ratio = Field(
        0.01,
        description="Share of calls without a `traceparent` that are traced, between 0 and 1. Calls with one are "
        "traced if it marks them as sampled.",
    )
    trace_spans_per_second: Annotated[float, Field(gt=0)] = Field(
        1000.0,
        title="SPANS",
        description="Maximum number of spans that the server exports per second, on average, whatever callers ask "
        "for; a call has up to 6. Each process gets an equal share.",
    )
    trace_queue_spans: Count = Field(
        4096, description="Maximum number of spans that wait to be exported in each process. Further ones are dropped."
    )
    trace_flush_seconds: Seconds = Field(
        2.0, description="How long spans that wait may take to be exported after the last call, in seconds."
    )
    trace_content_bytes: Annotated[int, Field(ge=0, le=65_536)] = Field(
        0,
        description="Number of bytes of its sequences that a call's span holds. None by default, because sequences "
        "may be confidential.",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"must be a URL of http or https, such as http://127.0.0.1:4318, got {shown(value)}")
        return value
