"""Settings of what operators see: logs and traces."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from birnn_bundle.quoting import shown
from birnn_service.setting_types import Count, Seconds

Ratio = Annotated[float, Field(ge=0, le=1)]


class ObserveSettings(BaseModel):
    """What is logged and traced."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the log: text, or one JSON object a line, for what collects logs."
    )
    access_log: Ratio = Field(
        0.0,
        title="RATIO",
        description="Share of calls that get a line in the log when they end, between 0 and 1. It names their callers "
        "and never holds sequences.",
    )
    otlp_endpoint: str | None = Field(
        None,
        description="URL of an OpenTelemetry collector that takes traces as OTLP over HTTP, such as "
        "http://127.0.0.1:4318. Needs the extra `otel`. By default what OTEL_EXPORTER_OTLP_ENDPOINT says; without "
        "either, there are no traces.",
    )
    trace_ratio: Ratio = Field(
        0.01,
        description="Share of the calls without a `traceparent` of their own that are traced, between 0 and 1. Of the "
        "others, those are traced that it marks as sampled.",
    )
    trace_spans_per_second: Annotated[float, Field(gt=0)] = Field(
        1000.0,
        title="SPANS",
        description="Maximum number of spans that the server exports a second, on average, whatever callers ask for; a "
        "call has up to 6. Each process gets an equal share.",
    )
    trace_queue_spans: Count = Field(
        4096, description="Maximum number of spans that wait to be exported in each process. Further ones are dropped."
    )
    trace_flush_seconds: Seconds = Field(
        2.0, description="How long spans that wait may take to be exported after the last call, in seconds."
    )
    trace_content_bytes: Annotated[int, Field(ge=0, le=65_536)] = Field(
        0,
        description="How many bytes of its sequences a call's span holds. By default none: what callers send may be "
        "confidential.",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"must be a URL of http or https, such as http://127.0.0.1:4318, got {shown(value)}")
        return value
