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
    """Query by panel and letter, or by annotation; all that Grafana can choose is chosen, with rates over `window`."""
    dashboard = read_dashboard()
    panels = {
        f"{panel['title']} {target['refId']}": _fill_in(target["expr"], window)
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    }
    return panels | {one["name"]: _fill_in(one["expr"], window) for one in dashboard["annotations"]["list"]}


def read_groups() -> list[dict[str, Any]]:
    """The groups of rules, as Prometheus reads them."""
    groups: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return groups


def alert_expressions() -> dict[str, str]:
    """Expression by alert."""
    return {rule["alert"]: rule["expr"] for group in read_groups() for rule in group["rules"] if "alert" in rule}


def recording_expressions() -> dict[str, str]:
    """Expression by recorded series."""
    return {rule["record"]: rule["expr"] for group in read_groups() for rule in group["rules"] if "record" in rule}


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


def recorded_series() -> set[str]:
    """Names of the series that the shipped rules record."""
    return {rule["record"] for group in read_groups() for rule in group["rules"] if "record" in rule}


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
