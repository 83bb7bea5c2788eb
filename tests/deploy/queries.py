"""The PromQL that this repository ships: the dashboard's queries and the alerts' expressions."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from birnn_service.observe.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "birnn.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
# Series that Prometheus itself makes.
FROM_PROMETHEUS = {"up"}


def read_dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana reads it."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return dashboard


def dashboard_queries(window: str = "5m") -> dict[str, str]:
    """Query by panel and letter, with Grafana's variables filled in: all encoders, rates over `window`."""
    return {
        f"{panel['title']} {target['refId']}": _fill_in(target["expr"], window)
        for panel in read_dashboard()["panels"]
        for target in panel.get("targets", [])
    }


def alert_expressions() -> dict[str, str]:
    """Expression by alert."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector of a query.

    Raises:
        ValueError: It is not PromQL.
    """
    found: list[promql_parser.VectorSelector] = []

    def collect(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), pre_visit=collect)
    return found


def served_series() -> set[str]:
    """Names of all series in the server's registry."""
    return {name for family in Metrics().registry.collect() for name in _series(family.name, family.type)}


def _series(name: str, kind: str) -> Iterator[str]:
    if kind == "histogram":
        yield from (f"{name}_{suffix}" for suffix in ("bucket", "sum", "count"))
    else:
        yield f"{name}_total" if kind == "counter" else name


def _fill_in(expression: str, window: str) -> str:
    filled = expression.replace("$__rate_interval", window)
    return re.sub(r"\$\w+|\$\{\w+\}", ".*", filled)
