"""Rows about calls: whether promises are kept, where time goes, what fails, and who calls."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from deploy.monitoring.objectives import METHODS, OBJECTIVES, SECONDS
from deploy.monitoring.panels import Panels, graph, number
from deploy.monitoring.queries import BY_VERSION, ENCODERS, SERVERS, VERSION, mean, quantile, quantiles, total

ANSWERS = f'{ENCODERS},method=~"{METHODS}",code="OK"'
FAILED = f'{SERVERS},code!="OK"'
MOST_TENANTS = 10


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
        number("Calls", "Calls a second.", total("birnn_requests_total", ENCODERS), "reqps"),
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
            "Calls per second, by status code.",
            {"{{code}}": total("birnn_requests_total", ENCODERS, "code")},
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
        graph("p99 by method", "", {"{{method}}": quantile(0.99, "birnn_request_seconds", ANSWERS, "method")}, "s"),
        graph("p99 by version", "", {VERSION: quantile(0.99, "birnn_request_seconds", ANSWERS, BY_VERSION)}, "s"),
        graph(
            "p99 of each stage",
            "Queue: until a call's last batch starts. Compute: one batch.",
            {stage: quantile(0.99, f"birnn_{stage}_seconds", ENCODERS, "") for stage in stages},
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
            {"{{instance}} {{process}}": quantile(0.99, "birnn_loop_lag_seconds", SERVERS, "instance, process")},
            "s",
        ),
    ]


def errors() -> Panels:
    """What goes wrong, and what has changed?"""
    tokens = total("birnn_tokens_total", ENCODERS, BY_VERSION)
    return [
        graph(
            "Errors by code",
            "",
            {"{{method}} {{code}}": total("birnn_requests_total", f'{ENCODERS},code!="OK"', "method, code")},
            "reqps",
        ),
        graph(
            "Sequences without an encoding",
            "Sequences that fail alone, by reason, and those that were cut.",
            {
                "{{code}}": total("birnn_sequence_errors_total", ENCODERS, "code"),
                "cut": total("birnn_truncated_sequences_total", ENCODERS),
            },
        ),
        graph(
            "Unknown tokens",
            "Share of tokens that the encoder does not know: the data is not what it was trained on.",
            {VERSION: f"{total('birnn_unknown_tokens_total', ENCODERS, BY_VERSION)} / {tokens}"},
            "percentunit",
        ),
        graph(
            "Faults of the server",
            "Calls that failed by one, and health probes that failed.",
            {
                "{{method}}": total("birnn_unexpected_errors_total", ENCODERS, "method"),
                f"probe {VERSION}": total("birnn_health_probes_total", f'{ENCODERS},outcome="failed"', BY_VERSION),
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


def tenants() -> Panels:
    """Who sends it, and who is refused? A server names at most 100 callers; here are those that do most."""
    return [
        _most("Calls by tenant", "Calls a second.", total("birnn_tenant_requests_total", SERVERS, "tenant"), "reqps"),
        _most("Sequences by tenant", "", total("birnn_tenant_sequences_total", SERVERS, "tenant")),
        _most(
            "Engine by tenant",
            "Slots that each tenant keeps busy.",
            total("birnn_tenant_engine_seconds_total", SERVERS, "tenant"),
        ),
        _most(
            "Errors by tenant",
            "Share of a tenant's calls that did not end with OK.",
            f"{total('birnn_tenant_requests_total', FAILED, 'tenant')} / "
            f"{total('birnn_tenant_requests_total', SERVERS, 'tenant')}",
            "percentunit",
        ),
        _most(
            "Refused by tenant",
            "Calls refused, by reason.",
            total("birnn_tenant_refused_total", SERVERS, "tenant, reason"),
            "reqps",
            "{{tenant}} {{reason}}",
        ),
    ]


def _most(title: str, text: str, query: str, unit: str = "short", legend: str = "{{tenant}}") -> Builder[Panel]:
    return graph(title, text, {legend: f"topk({MOST_TENANTS}, {query})"}, unit)
