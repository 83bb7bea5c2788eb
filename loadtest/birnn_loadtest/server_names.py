"""What servers call their metrics, and which of them mean the same."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """How a server tells a distribution, or only its mean.

    Attributes:
        words: What is measured.
        total: A histogram, or a counter of the sum.
        count: The counter of how many values the sum has; None for a histogram.
        unit: What one of the sum is in our unit.
    """

    words: str
    total: str
    count: str | None = None
    unit: float = 1.0


@dataclass(frozen=True, slots=True)
class ServerNames:
    """The metrics of one kind of server.

    Attributes:
        prefix: With which the names of its metrics begin.
        label: Which label names the encoder.
        stages: Of a call, in seconds: "request", the whole, and its parts in order.
        batches: Sequences in a batch.
        counters: What is told besides.
        waiting: Gauge of the sequences that wait; None where there is none.
    """

    prefix: str
    label: str
    stages: Mapping[str, Measure]
    batches: Measure
    counters: Mapping[str, str]
    waiting: str | None


OURS = ServerNames(
    prefix="birnn_",
    label="encoder",
    stages={
        "request": Measure("from a call's arrival to its reply, for each call", "birnn_request_seconds"),
        "tokenize": Measure("strings to tokens, its wait included, for each call", "birnn_tokenize_seconds"),
        "queue": Measure("from queued to the start of its last batch, for each call", "birnn_queue_seconds"),
        "compute": Measure("for each batch, which calls share", "birnn_compute_seconds"),
    },
    batches=Measure("sequences in a batch", "birnn_batch_sequences"),
    counters={
        "calls": "birnn_requests_total",
        "sequences": "birnn_sequences_total",
        "tokens": "birnn_tokens_total",
        "padded_tokens": "birnn_padded_tokens_total",
        "shared_sequences": "birnn_shared_sequences_total",
        "cache_hits": "birnn_cache_hits_total",
    },
    waiting="birnn_queue_sequences",
)

# Triton counts only calls that succeeded in its durations, and each call with the whole time of the batch it was in.
# It has no percentiles of them. A batch that failed counts in exec_count, and its sequences count nowhere. Gathering
# inputs and sending outputs are in "rest", as they are with ours. Its gauge nv_inference_pending_request_count is of
# calls and not of sequences.
_SUCCESS = "nv_inference_request_success"
TRITON = ServerNames(
    prefix="nv_inference_",
    label="model",
    stages={
        "request": Measure(
            "from a call's arrival to its reply, for each call", "nv_inference_request_duration_us", _SUCCESS, 1e-6
        ),
        "queue": Measure(
            "from queued to the start of its batch, for each call", "nv_inference_queue_duration_us", _SUCCESS, 1e-6
        ),
        "compute": Measure(
            "its batch in the model, which may tokenize there, for each call",
            "nv_inference_compute_infer_duration_us",
            _SUCCESS,
            1e-6,
        ),
    },
    batches=Measure("sequences in a batch", "nv_inference_count", "nv_inference_exec_count"),
    counters={"calls": _SUCCESS, "failed_calls": "nv_inference_request_failure", "sequences": "nv_inference_count"},
    waiting=None,
)
KINDS = (OURS, TRITON)
