"""Rows about the engine: what is left of it, how well batches fit, and what need not be computed."""

from deploy.monitoring.panels import Panels, graph
from deploy.monitoring.queries import BY_VERSION, ENCODERS, RATE, SERVERS, VERSION, mean, quantile, quantiles, total


def saturation() -> Panels:
    """How much is left?"""
    busy = (
        f"{total('birnn_engine_busy_seconds_total', SERVERS, 'job, instance')} / on (job, instance) birnn_engine_slots"
    )
    process = "job, instance, process"
    return [
        graph(
            "Engine",
            "Share of its slots that is busy.",
            {"{{instance}}": busy},
            "percentunit",
            most=1,
        ),
        graph(
            "Engine by version",
            "Slots that each version keeps busy.",
            {VERSION: total("birnn_engine_busy_seconds_total", ENCODERS, BY_VERSION)},
            stacked=True,
        ),
        graph(
            "Backlog",
            "Predicted seconds until all that waits has been computed, and the limit beyond which calls are refused.",
            {
                "{{instance}}": total("birnn_backlog_seconds", SERVERS, "instance"),
                "limit": f"min(birnn_backlog_limit_seconds{{{SERVERS}}})",
            },
            "s",
        ),
        graph(
            "Waiting",
            "What is in the queue.",
            {
                f"sequences {VERSION}": total("birnn_queue_sequences", ENCODERS, BY_VERSION),
                f"tokens {VERSION}": total("birnn_queue_tokens", ENCODERS, BY_VERSION),
            },
        ),
        graph(
            "Refused",
            "Calls refused, by reason, and connections closed because there are too many.",
            {
                "{{reason}}": total("birnn_refused_total", ENCODERS, "reason"),
                "connections, {{transport}}": total("birnn_connections_refused_total", SERVERS, "transport"),
            },
            "reqps",
            stacked=True,
        ),
        graph(
            "Capacity",
            "Tokens a second now, and what they would be if the engine were busy all the time.",
            {
                "now": total("birnn_tokens_total", SERVERS),
                "at most": f"{total('birnn_tokens_total', SERVERS)} / (sum(rate(birnn_engine_busy_seconds_total"
                f"{{{SERVERS}}}{RATE})) / sum(birnn_engine_slots{{{SERVERS}}}))",
            },
        ),
        graph(
            "Calls in flight",
            "Of the places for calls (--max-calls), those that are taken.",
            {
                "{{instance}} {{process}}": f"{total('birnn_calls_in_flight', SERVERS, process)}"
                f" / on ({process}) birnn_calls_limit"
            },
            "percentunit",
        ),
        graph(
            "Memory of calls",
            "Of the memory for calls (--memory-mib), what is set aside.",
            {
                "{{instance}} {{process}}": f"birnn_call_memory_bytes{{{SERVERS}}}"
                f" / birnn_call_memory_limit_bytes{{{SERVERS}}}"
            },
            "percentunit",
        ),
        graph(
            "File descriptors",
            "Of those that a process may open.",
            {
                "{{instance}} {{process}}": f"birnn_process_descriptors{{{SERVERS}}}"
                f" / birnn_process_descriptors_limit{{{SERVERS}}}"
            },
            "percentunit",
        ),
    ]


def batching() -> Panels:
    """How well do batches fit?"""
    padded, tokens = (total(f"birnn_{one}_total", ENCODERS, BY_VERSION) for one in ("padded_tokens", "tokens"))
    return [
        graph(
            "Sequences in a batch",
            "",
            {
                f"mean {VERSION}": mean("birnn_batch_sequences", ENCODERS, BY_VERSION),
                f"p99 {VERSION}": quantile(0.99, "birnn_batch_sequences", ENCODERS, BY_VERSION),
            },
        ),
        graph(
            "Batches", "Batches a second.", {VERSION: total("birnn_compute_seconds_count", ENCODERS, BY_VERSION)}, "ops"
        ),
        graph(
            "Padding",
            "Share of what is computed.",
            {
                f"mean {VERSION}": f"{padded} / ({padded} + {tokens})",
                f"p99 {VERSION}": quantile(0.99, "birnn_batch_padding_ratio", ENCODERS, BY_VERSION),
            },
            "percentunit",
        ),
        graph(
            "Prediction",
            "How far the predicted time of a batch is from its time, as a share of it: what admission relies on.",
            {VERSION: mean("birnn_cost_error_ratio", ENCODERS, BY_VERSION)},
            "percentunit",
        ),
        graph("Sequence length", "Tokens.", quantiles("birnn_sequence_length", ENCODERS)),
        graph(
            "Throughput",
            "Sequences and tokens a second.",
            {
                f"sequences {VERSION}": total("birnn_sequences_total", ENCODERS, BY_VERSION),
                f"tokens {VERSION}": tokens,
            },
        ),
    ]


def cache() -> Panels:
    """What need not be computed?"""
    hits, misses = (total(f"birnn_cache_{one}_total", ENCODERS, BY_VERSION) for one in ("hits", "misses"))
    return [
        graph(
            "Hits",
            "Share of sequences found in the response cache.",
            {VERSION: f"{hits} / ({hits} + {misses})"},
            "percentunit",
        ),
        graph(
            "Size",
            "Of the response cache, and the most that it may be (--cache-mib).",
            {
                "{{instance}}": f"birnn_cache_bytes{{{SERVERS}}}",
                "limit": f"max(birnn_cache_limit_bytes{{{SERVERS}}})",
            },
            "bytes",
        ),
        graph(
            "Shared",
            "Sequences answered by an equal one that was in flight.",
            {VERSION: total("birnn_shared_sequences_total", ENCODERS, BY_VERSION)},
        ),
    ]
