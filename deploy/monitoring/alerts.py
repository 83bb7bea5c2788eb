"""Recording rules and alerts, for Prometheus and for its operator.

They ask for series by their own names and never for a job's, so they work whatever finds the servers: static targets,
annotations of pods, or a ServiceMonitor.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from deploy.monitoring.objectives import OBJECTIVES, Objective

RUNBOOKS = "https://git.example/birnn-serving/blob/main/docs/runbooks.md"
HEAD = "# Written by `make monitoring`, from deploy/monitoring; edit that. What to do about alerts: docs/runbooks.md\n"
# Windows, and how many times faster than promised the error budget is used up in both: the long one says that it
# matters, the short one that it still goes on. At 14.4 a month's budget lasts two days, at 6 five days, at 1 a month.
BURNS = (("1h", "5m", 14.4, "critical"), ("6h", "30m", 6.0, "critical"), ("3d", "6h", 1.0, "warning"))
WINDOWS = ("5m", "30m", "1h", "6h", "3d")
# Fewer bad calls in a long window than this wake no one: of a handful of calls one is a large share.
LEAST_BAD = 10


@dataclass(frozen=True)
class Alert:
    """One alert.

    Attributes:
        name: Of it; its runbook has a heading of that name.
        expression: PromQL.
        duration: For how long it must hold.
        severity: `critical` wakes someone, `warning` waits for the morning, `info` for somebody who looks.
        summary: What is wrong, in one line.
    """

    name: str
    expression: str
    duration: str
    severity: str
    summary: str

    @property
    def rule(self) -> dict[str, Any]:
        """It, as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.duration,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook_url": f"{RUNBOOKS}#{self.name.lower()}"},
        }


ALERTS = (
    Alert(
        "BirnnDown",
        'up{job=~".*birnn.*"} == 0\n'
        "  or (up == 0 and on (job, instance) present_over_time(birnn_server_info[1d]))\n"
        "  or absent(birnn_server_info)",
        "1m",
        "critical",
        'Prometheus gets no answer from {{ or $labels.instance "any server" }}',
    ),
    Alert(
        "BirnnEncoderNotReady",
        "birnn_encoder_ready == 0",
        "1m",
        "critical",
        "{{ $labels.instance }} does not serve {{ $labels.encoder }}/{{ $labels.version }}",
    ),
    Alert(
        "BirnnProbeFailed",
        'increase(birnn_health_probes_total{outcome="failed"}[10m]) > 0',
        "0m",
        "critical",
        "{{ $labels.encoder }}/{{ $labels.version }} on {{ $labels.instance }} fails its health probes",
    ),
    # Never empty for ten minutes, on an engine that was busy all the time: more arrives than is computed. The queue may
    # grow, or be full.
    Alert(
        "BirnnSaturated",
        "min_over_time((sum by (job, instance) (birnn_queue_tokens))[10m:]) > 0\n"
        "  and sum by (job, instance) (rate(birnn_engine_busy_seconds_total[10m]))\n"
        "    / on (job, instance) birnn_engine_slots > 0.9",
        "5m",
        "warning",
        "{{ $labels.instance }} gets more than it computes",
    ),
    Alert(
        "BirnnRefuses",
        "sum by (job, instance, reason) (\n"
        '  rate(birnn_refused_total{reason=~"queue|deadline|expired|memory|calls"}[5m])\n'
        ")\n"
        "  / on (job, instance) group_left () sum by (job, instance) (rate(birnn_requests_total[5m])) > 0.01",
        "10m",
        "warning",
        "{{ $labels.instance }} refuses {{ $value | humanizePercentage }} of its calls ({{ $labels.reason }})",
    ),
    Alert(
        "BirnnNearLimit",
        "label_replace(sum by (job, instance, process) (birnn_calls_in_flight)"
        ' / on (job, instance, process) birnn_calls_limit, "limit", "calls", "", "") > 0.9\n'
        "  or label_replace(birnn_call_memory_bytes / birnn_call_memory_limit_bytes,"
        ' "limit", "memory of calls", "", "") > 0.9\n'
        "  or label_replace(birnn_process_descriptors / birnn_process_descriptors_limit,"
        ' "limit", "file descriptors", "", "") > 0.9',
        "5m",
        "warning",
        "{{ $labels.instance }} ({{ $labels.process }}) has used up {{ $value | humanizePercentage }} of its "
        "{{ $labels.limit }}",
    ),
    Alert(
        "BirnnUnexpectedErrors",
        "sum by (job, instance, method) (increase(birnn_unexpected_errors_total[15m])) > 0",
        "0m",
        "warning",
        "{{ $labels.method }} fails on {{ $labels.instance }} by a fault of the server",
    ),
    Alert(
        "BirnnFallback",
        "birnn_encoder_fallback == 1",
        "5m",
        "warning",
        "{{ $labels.encoder }}/{{ $labels.version }} on {{ $labels.instance }} runs on an engine of second choice",
    ),
    # Engines give the same numbers every time. One whose numbers move is on its way to failing.
    Alert(
        "BirnnGoldenDrift",
        "max_over_time(birnn_golden_drift_ratio[1h]) - min_over_time(birnn_golden_drift_ratio[1d]) > 0.1",
        "0m",
        "warning",
        "The vectors of {{ $labels.encoder }}/{{ $labels.version }} on {{ $labels.instance }} have moved by "
        "{{ $value | humanizePercentage }} of what is allowed",
    ),
    Alert(
        "BirnnLoadRefused",
        'sum by (job, instance, encoder, version) (increase(birnn_encoder_loads_total{outcome="refused"}[1h])) > 0',
        "0m",
        "warning",
        "{{ $labels.instance }} goes on with the old files of {{ $labels.encoder }}/{{ $labels.version }}: "
        "the new ones are refused",
    ),
    Alert(
        "BirnnUnknownTokens",
        "sum by (namespace, job, encoder, version) (rate(birnn_unknown_tokens_total[15m]))\n"
        "  / sum by (namespace, job, encoder, version) (rate(birnn_tokens_total[15m])) > 0.01",
        "15m",
        "info",
        "{{ $value | humanizePercentage }} of the tokens sent to {{ $labels.encoder }}/{{ $labels.version }} "
        "are unknown to it",
    ),
    # Of CPU servers only: a GPU computes padding for next to nothing.
    Alert(
        "BirnnPaddingWaste",
        "(\n"
        "  rate(birnn_padded_tokens_total[15m])\n"
        "    / (rate(birnn_padded_tokens_total[15m]) + rate(birnn_tokens_total[15m])) > 0.3\n"
        ') and on (job, instance, encoder, version) birnn_encoder_info{device="cpu"}',
        "15m",
        "info",
        "{{ $value | humanizePercentage }} of what {{ $labels.instance }} computes for {{ $labels.encoder }} "
        "is padding",
    ),
    Alert(
        "BirnnLoopLag",
        "histogram_quantile(0.99,\n"
        "  sum by (le, job, instance, process) (rate(birnn_loop_lag_seconds_bucket[5m]))\n"
        ") > 0.25",
        "10m",
        "warning",
        "The event loop of {{ $labels.instance }} ({{ $labels.process }}) is {{ $value | humanizeDuration }} late",
    ),
    Alert(
        "BirnnFrontEndsMissing",
        "birnn_frontends < birnn_frontends_wanted or increase(birnn_frontend_restarts_total[15m]) > 3",
        "2m",
        "warning",
        "Front-ends of {{ $labels.instance }} end or do not start",
    ),
    # Certificates are read again when their files change; this fires where no one has renewed them.
    Alert(
        "BirnnCertificateExpires",
        "0 < birnn_certificate_not_after_seconds and birnn_certificate_not_after_seconds - time() < 7 * 86400",
        "15m",
        "warning",
        "The certificate of {{ $labels.instance }} ends within 7 days",
    ),
)


def groups() -> list[dict[str, Any]]:
    """All groups of rules."""
    return [
        {"name": "birnn-objectives", "rules": [rule for one in OBJECTIVES for rule in _recording(one)]},
        {"name": "birnn-burn-rates", "rules": [alert.rule for one in OBJECTIVES for alert in _burning(one)]},
        {"name": "birnn", "rules": [alert.rule for alert in ALERTS]},
    ]


def prometheus_file() -> str:
    """deploy/prometheus/alerts.yml."""
    return HEAD + _yaml({"groups": groups()})


def operator_file() -> str:
    """The same as a PrometheusRule, for clusters with the Prometheus operator."""
    return HEAD + _yaml(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "birnn"},
            "spec": {"groups": groups()},
        }
    )


def _recording(one: Objective) -> Iterator[dict[str, Any]]:
    for window in WINDOWS:
        yield {"record": one.recorded(window), "expr": one.ratio.format(window=window)}


def _burning(one: Objective) -> Iterator[Alert]:
    for severity in ("critical", "warning"):
        burns = [burn for burn in BURNS if burn[3] == severity]
        conditions = [
            f"(\n  {one.recorded(long)} > {factor:g} * {one.budget:g}\n"
            f"  and {one.recorded(short)} > {factor:g} * {one.budget:g}\n"
            f"  and {one.bad.format(window=long)} >= {LEAST_BAD}\n)"
            for long, short, factor, _ in burns
        ]
        speed = "fast" if severity == "critical" else "slowly"
        yield Alert(
            f"Birnn{one.title}Burn{speed.title()}",
            " or ".join(conditions),
            "2m" if severity == "critical" else "1h",
            severity,
            f"{{{{ $value | humanizePercentage }}}} of the calls to {{{{ $labels.job }}}} {one.failing} "
            f"(objective: {one.budget:.3g} at most)",
        )


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(content: dict[str, Any]) -> str:
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return text
