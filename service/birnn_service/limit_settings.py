"""Settings that bound memory, time and errors."""

from typing import Annotated

from pydantic import BaseModel, Field

from birnn_bundle.precisions import LEAST_MIN_COSINE, MIN_COSINES
from birnn_service.setting_types import Count, Limit, Seconds


class LimitSettings(BaseModel):
    """What calls, connections, replies and bundles may take."""

    max_sequences: Count = Field(16_384, description="Maximum number of sequences in one call.")
    max_sequence_bytes: Count = Field(
        65_536, description="Maximum length of a sequence, in bytes; only longer ones fail."
    )
    max_message_mib: Annotated[int, Field(ge=1, le=2047)] = Field(
        16,
        description="Maximum size of a request message, in MiB. Reading one blocks the event loop for about a "
        "millisecond per MiB.",
    )
    max_reply_mib: Annotated[int, Field(ge=1, le=2047)] | None = Field(
        None,
        description="Maximum size of a reply, in MiB. The error for a larger one says to split the request. By default "
        "a sixteenth of the memory that the server may use, at most 1024.",
    )
    memory_mib: Annotated[int, Field(ge=256)] | None = Field(
        None,
        description="Memory that the server may use, in MiB; by default the limit of its container or machine. Half of "
        "it is for calls in progress. Calls that would need more get RESOURCE_EXHAUSTED.",
    )
    max_calls: Count = Field(
        8192,
        description="Maximum number of calls in progress. One caller may have three quarters of them. Further calls "
        "get RESOURCE_EXHAUSTED before they are read. A quarter as many health watches may run in addition.",
    )
    stream_window: Annotated[int, Field(ge=1, le=65_536)] = Field(
        256,
        description="Maximum number of requests in progress on one stream. Further ones are read once others have been "
        "answered.",
    )
    max_backlog_seconds: Annotated[float, Field(gt=0)] = Field(
        30.0,
        description="Maximum amount of queued work, in predicted seconds. Beyond that, callers that exceed their share "
        "get RESOURCE_EXHAUSTED.",
    )
    max_request_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="How long a request may take to arrive, from its first byte to its last, in seconds."
    )
    max_reply_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="How long a caller may take to read a reply, in seconds. Then its connection is closed."
    )
    max_head_seconds: Annotated[float, Field(gt=0)] = Field(
        10.0,
        description="How long the head of an HTTP request may take to arrive, in seconds; with --transport native that "
        "of a gRPC call, too.",
    )
    max_idle_seconds: Count = Field(
        75,
        description="How long an HTTP connection may wait for its next request, in seconds. Proxies usually keep "
        "connections for 60 s.",
    )
    max_connections: Count = Field(
        4096,
        description="Maximum number of HTTP connections, and with --transport native as many of gRPC. One caller may "
        "have three quarters of them.",
    )
    max_connection_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(
        600.0,
        description="Age of a connection, in seconds, at which its client is asked to reconnect, so that it finds new "
        "replicas. Calls in progress finish.",
    )
    drain_seconds: Seconds = Field(20.0, description="Seconds that calls in progress may take to finish after SIGTERM.")
    linger_seconds: Seconds = Field(
        0.5,
        description="Minimum time, in seconds, that the ports stay open after SIGTERM. Callers that do not know of the "
        "shutdown yet get UNAVAILABLE, and can turn to another server. With --transport native the gRPC port closes at "
        "once, and clients are sent to another server.",
    )
    health_seconds: Annotated[float, Field(gt=0)] = Field(
        5.0, description="An encoder that has been idle for this many seconds is checked by a real forward pass."
    )
    max_tolerance: Annotated[float, Field(gt=0, le=0.1)] = Field(
        1e-3,
        description="Maximum absolute error against the float64 reference in float32. A bundle that exceeds it is not "
        "served, even if its manifest allows more.",
    )
    min_cosine: Annotated[float, Field(ge=LEAST_MIN_COSINE, lt=1)] | None = Field(
        None,
        description="Minimum cosine between an encoding and its reference, in any precision. A bundle below it is not "
        f"served. By default {MIN_COSINES['bf16']}, and {MIN_COSINES['int8']} in int8.",
    )
    max_bundle_mib: Count = Field(
        2048, description="Maximum memory for the files of one bundle while it is loaded, in MiB."
    )
    source_stall_seconds: Limit = Field(
        20.0, description="How long a store may send nothing before it counts as unreachable, in seconds."
    )
    source_seconds: Limit = Field(
        600.0, description="How long listing a store, or fetching one bundle, may take, in seconds."
    )
