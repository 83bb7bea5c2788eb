"""The rows of the dashboard: a question each."""

from collections.abc import Sequence

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from deploy.monitoring.objectives import METHODS, OBJECTIVES, SECONDS
from deploy.monitoring.panels import ENCODERS, RATE, SERVERS, graph, mean, number, quantiles, rows_of

Panels = Sequence[Builder[Panel]]
ANSWERS = f'{ENCODERS},method=~"{METHODS}",code="OK"'
VERSION = "{{encoder}}/{{version}}"
BY_VERSION = "encoder, version"
FAILED = f'{SERVERS},code!="OK"'
MOST_TENANTS = 10


def _sum(series: str, matchers: str, by: str = "") -> str:
    """The rate of a counter, or the value of a gauge without `_total`."""
    value = f"{series}{{{matchers}}}"
    value = f"rate({value}{RATE})" if series.endswith(("_total", "_count")) else value
    return f"sum by ({by}) ({value})" if by else f"sum({value})"


def objectives() -> Panels:
    """Is what was promised kept?"""
    job = 'job=~"$job"'
    numbers: list[Builder[Panel]] = [
        number(
            "Ready",
            "Least readiness of the chosen encoders over all servers: 0 where a version that was found is not served.",
            f"min(birnn_encoder_ready{{{ENCODERS}}})",
            "bool_yes_no",
            {1: "green"},
            base="red",
        ),
        number("Calls", "Calls a second.", _sum("birnn_requests_total", ENCODERS), "reqps"),
    ]
    graphs: list[Builder[Panel]] = []
    for one in OBJECTIVES:
        numbers += [
            number(
                f"{one.title}, 6 h",
                f"Share of calls that do not {one.failing}; {one.promised:.4g} is promised. From the rules that ship.",
                f"1 - max({one.recorded('6h')}{{{job}}})",
                "percentunit",
                {one.promised: "green"},
                base="red",
            ),
            number(
                f"{one.title}: burn rate, 1 h",
                "How many times faster than promised the error budget is used up. Above 14.4 an alert wakes someone.",
                f"max({one.recorded('1h')}{{{job}}}) / {one.budget:g}",
                "short",
                {1: "orange", 14.4: "red"},
                base="green",
            ),
        ]
        graphs.append(
            graph(
                f"{one.title}: burn rate",
                "How many times faster than promised the error budget is used up, by window. At 1 it lasts a month.",
                {
                    f"{{{{job}}}} {window}": f"{one.recorded(window)}{{{job}}} / {one.budget:g}"
                    for window in ("5m", "1h", "6h", "3d")
                },
            )
        )
    graphs.append(
        graph(
            "Calls by code",
            "What became of calls.",
            {"{{code}}": _sum("birnn_requests_total", ENCODERS, "code")},
            "reqps",
            stacked=True,
        )
    )
    return [*numbers, *graphs]


def latency() -> Panels:
    """Where does the time of a call go?"""
    stages = ("tokenize", "queue", "compute")
    return [
        graph(
            "Answers",
            f"From a call's arrival to its reply; without refusals. Promised: {SECONDS:g} s.",
            quantiles("birnn_request_seconds", ANSWERS),
            "s",
        ),
        graph("p99 by method", "", {"{{method}}": _p99("birnn_request_seconds", ANSWERS, "method")}, "s"),
        graph("p99 by version", "", {VERSION: _p99("birnn_request_seconds", ANSWERS, BY_VERSION)}, "s"),
        graph(
            "p99 of each stage",
            "Queue: until a call's last batch starts. Compute: one batch.",
            {stage: _p99(f"birnn_{stage}_seconds", ENCODERS, "") for stage in stages},
            "s",
        ),
        graph(
            "Mean of each stage",
            "",
            {f"{stage} {VERSION}": mean(f"birnn_{stage}_seconds", ENCODERS, BY_VERSION) for stage in stages},
            "s",
        ),
        graph(
            "Event loop",
            "How late the event loop wakes what is due (p99). All calls of the process wait for it.",
            {"{{instance}} {{process}}": _p99("birnn_loop_lag_seconds", SERVERS, "instance, process")},
            "s",
        ),
    ]


def saturation() -> Panels:
    """How much is left?"""
    busy = (
        f"{_sum('birnn_engine_busy_seconds_total', SERVERS, 'job, instance')} / on (job, instance) birnn_engine_slots"
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
            {VERSION: _sum("birnn_engine_busy_seconds_total", ENCODERS, BY_VERSION)},
            stacked=True,
        ),
        graph(
            "Backlog",
            "Predicted seconds until all that waits has been computed, and the limit beyond which calls are refused.",
            {
                "{{instance}}": _sum("birnn_backlog_seconds", SERVERS, "instance"),
                "limit": f"min(birnn_backlog_limit_seconds{{{SERVERS}}})",
            },
            "s",
        ),
        graph(
            "Waiting",
            "What is in the queue.",
            {
                f"sequences {VERSION}": _sum("birnn_queue_sequences", ENCODERS, BY_VERSION),
                f"tokens {VERSION}": _sum("birnn_queue_tokens", ENCODERS, BY_VERSION),
            },
        ),
        graph(
            "Refused",
            "Calls refused, by reason, and connections closed because there are too many.",
            {
                "{{reason}}": _sum("birnn_refused_total", ENCODERS, "reason"),
                "connections, {{transport}}": _sum("birnn_connections_refused_total", SERVERS, "transport"),
            },
            "reqps",
            stacked=True,
        ),
        graph(
            "Capacity",
            "Tokens a second now, and what they would be if the engine were busy all the time.",
            {
                "now": _sum("birnn_tokens_total", SERVERS),
                "at most": f"{_sum('birnn_tokens_total', SERVERS)} / (sum(rate(birnn_engine_busy_seconds_total"
                f"{{{SERVERS}}}{RATE})) / sum(birnn_engine_slots{{{SERVERS}}}))",
            },
        ),
        graph(
            "Calls in flight",
            "Of the places for calls (--max-calls), those that are taken.",
            {
                "{{instance}} {{process}}": f"{_sum('birnn_calls_in_flight', SERVERS, process)}"
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
    padded, tokens = (_sum(f"birnn_{one}_total", ENCODERS, BY_VERSION) for one in ("padded_tokens", "tokens"))
    return [
        graph(
            "Sequences in a batch",
            "",
            {
                f"mean {VERSION}": mean("birnn_batch_sequences", ENCODERS, BY_VERSION),
                f"p99 {VERSION}": _p99("birnn_batch_sequences", ENCODERS, BY_VERSION),
            },
        ),
        graph(
            "Batches", "Batches a second.", {VERSION: _sum("birnn_compute_seconds_count", ENCODERS, BY_VERSION)}, "ops"
        ),
        graph(
            "Padding",
            "Share of what is computed.",
            {
                f"mean {VERSION}": f"{padded} / ({padded} + {tokens})",
                f"p99 {VERSION}": _p99("birnn_batch_padding_ratio", ENCODERS, BY_VERSION),
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
                f"sequences {VERSION}": _sum("birnn_sequences_total", ENCODERS, BY_VERSION),
                f"tokens {VERSION}": tokens,
            },
        ),
    ]


def encoders() -> Panels:
    """What is served, and by what?"""
    return [
        rows_of(
            "Versions",
            "What is served.",
            f"birnn_encoder_info{{{ENCODERS}}}",
            {
                "instance": "server",
                "encoder": "encoder",
                "version": "version",
                "architecture": "architecture",
                "dimension": "dimension",
                "pooling": "pooling",
                "engine": "engine",
                "device": "device",
                "precision": "precision",
            },
        ),
        graph(
            "Ready",
            "1 where a version is served.",
            {f"{VERSION} {{{{instance}}}}": f"birnn_encoder_ready{{{ENCODERS}}}"},
        ),
        graph(
            "Calls by version",
            "",
            {VERSION: _sum("birnn_requests_total", f'{ENCODERS},encoder!=""', BY_VERSION)},
            "reqps",
        ),
        graph(
            "Swaps",
            "Versions loaded, refused and unloaded.",
            {
                f"{{{{outcome}}}} {VERSION}": "sum by (outcome, encoder, version) "
                f"(increase(birnn_encoder_loads_total{{{ENCODERS}}}{RATE}))"
            },
        ),
        graph(
            "Second choice",
            "1 where `auto` could not have the device or the engine that it tried first.",
            {f"{VERSION} {{{{instance}}}}": f"birnn_encoder_fallback{{{ENCODERS}}}"},
        ),
    ]


def errors() -> Panels:
    """What goes wrong, and what has changed?"""
    tokens = _sum("birnn_tokens_total", ENCODERS, BY_VERSION)
    return [
        graph(
            "Errors by code",
            "",
            {"{{method}} {{code}}": _sum("birnn_requests_total", f'{ENCODERS},code!="OK"', "method, code")},
            "reqps",
        ),
        graph(
            "Sequences without an encoding",
            "Sequences that fail alone, by reason, and those that were cut.",
            {
                "{{code}}": _sum("birnn_sequence_errors_total", ENCODERS, "code"),
                "cut": _sum("birnn_truncated_sequences_total", ENCODERS),
            },
        ),
        graph(
            "Unknown tokens",
            "Share of tokens that the encoder does not know: the data is not what it was trained on.",
            {VERSION: f"{_sum('birnn_unknown_tokens_total', ENCODERS, BY_VERSION)} / {tokens}"},
            "percentunit",
        ),
        graph(
            "Faults of the server",
            "Calls that failed by one, and health probes that failed.",
            {
                "{{method}}": _sum("birnn_unexpected_errors_total", ENCODERS, "method"),
                f"probe {VERSION}": _sum("birnn_health_probes_total", f'{ENCODERS},outcome="failed"', BY_VERSION),
            },
        ),
        graph(
            "Golden drift",
            "How far the last health probe was from the golden vector, as a share of what is allowed.",
            {f"{VERSION} {{{{instance}}}}": f"birnn_golden_drift_ratio{{{ENCODERS}}}"},
            "percentunit",
        ),
        graph(
            "Drift of candidates",
            "1 - cosine of a candidate's vectors to those served: 0 for the same direction, 1 for unrelated vectors.",
            quantiles("birnn_shadow_drift", ENCODERS, "encoder, candidate"),
        ),
    ]


def front_ends() -> Panels:
    """How are the processes?"""
    each = "{{instance}} {{process}}"
    return [
        graph(
            "Front-ends",
            "Those that take calls, those that there should be, and restarts.",
            {
                "{{instance}}": f"birnn_frontends{{{SERVERS}}}",
                "{{instance}} wanted": f"birnn_frontends_wanted{{{SERVERS}}}",
                "{{instance}} restarts": f"increase(birnn_frontend_restarts_total{{{SERVERS}}}{RATE})",
            },
        ),
        graph("CPU", "Cores.", {each: f"rate(birnn_process_cpu_seconds_total{{{SERVERS}}}{RATE})"}),
        graph("Memory", "", {each: f"birnn_process_resident_bytes{{{SERVERS}}}"}, "bytes"),
        rows_of(
            "Servers",
            "Versions of the server and of onnxruntime.",
            f"birnn_server_info{{{SERVERS}}}",
            {"job": "job", "instance": "server", "version": "version", "onnxruntime": "onnxruntime"},
        ),
        graph(
            "Without a descriptor",
            "Times that a process had no file descriptor left for another connection.",
            {"{{instance}}": f"increase(birnn_descriptors_exhausted_total{{{SERVERS}}}{RATE})"},
        ),
    ]


def cache() -> Panels:
    """What need not be computed?"""
    hits, misses = (_sum(f"birnn_cache_{one}_total", ENCODERS, BY_VERSION) for one in ("hits", "misses"))
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
            {VERSION: _sum("birnn_shared_sequences_total", ENCODERS, BY_VERSION)},
        ),
    ]


def tenants() -> Panels:
    """Who sends it, and who is refused? A server names at most 100 callers; here are those that do most."""
    return [
        _most("Calls by tenant", "Calls a second.", _sum("birnn_tenant_requests_total", SERVERS, "tenant"), "reqps"),
        _most("Sequences by tenant", "", _sum("birnn_tenant_sequences_total", SERVERS, "tenant")),
        _most(
            "Engine by tenant",
            "Slots that each tenant keeps busy.",
            _sum("birnn_tenant_engine_seconds_total", SERVERS, "tenant"),
        ),
        _most(
            "Errors by tenant",
            "Share of a tenant's calls that did not end with OK.",
            f"{_sum('birnn_tenant_requests_total', FAILED, 'tenant')} / "
            f"{_sum('birnn_tenant_requests_total', SERVERS, 'tenant')}",
            "percentunit",
        ),
        _most(
            "Refused by tenant",
            "Calls refused, by reason.",
            _sum("birnn_tenant_refused_total", SERVERS, "tenant, reason"),
            "reqps",
            "{{tenant}} {{reason}}",
        ),
    ]


def _most(title: str, text: str, query: str, unit: str = "short", legend: str = "{{tenant}}") -> Builder[Panel]:
    return graph(title, text, {legend: f"topk({MOST_TENANTS}, {query})"}, unit)


def _p99(series: str, matchers: str, by: str) -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile(0.99, sum by ({labels}) (rate({series}_bucket{{{matchers}}}{RATE})))"
