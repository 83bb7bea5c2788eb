"""Which files are generated, and from what."""

from pathlib import Path

from deploy.monitoring.alerts import operator_file, prometheus_file
from deploy.monitoring.dashboard import dashboard_file
from deploy.monitoring.metrics_document import metrics_document

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def generated() -> dict[Path, str]:
    """The content of each generated file."""
    metrics = ROOT / "docs" / "metrics.md"
    return {
        metrics: metrics_document(metrics),
        DEPLOY / "grafana" / "dashboards" / "birnn.json": dashboard_file(),
        DEPLOY / "prometheus" / "alerts.yml": prometheus_file(),
        DEPLOY / "kubernetes" / "components" / "prometheus-rule" / "prometheus-rule.yaml": operator_file(),
    }
