import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.queries import (
    ALERTS,
    FROM_PROMETHEUS,
    alert_expressions,
    read_groups,
    recorded_series,
    recording_expressions,
    selectors,
    served_series,
)

EXPRESSIONS = alert_expressions()
RULES = EXPRESSIONS | recording_expressions()
ROOT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("alerts_test.yml")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: `prometheus`)")


def promtool(*arguments: str | Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expression", RULES.values(), ids=RULES.keys())
def test_every_rule_is_promql_over_series_that_the_server_has(expression: str) -> None:
    names = {selector.name for selector in selectors(expression)}
    assert names
    assert names <= served_series() | recorded_series() | FROM_PROMETHEUS


@needs_promtool
def test_prometheus_accepts_the_configuration_with_its_alerts() -> None:
    promtool("check", "config", ALERTS.with_name("prometheus.yml"))


@needs_promtool
def test_alerts_fire_on_what_they_are_for_and_keep_quiet_next_to_it() -> None:
    promtool("test", "rules", CASES)


def test_every_alert_has_a_case() -> None:
    cases = CASES.read_text(encoding="utf-8")
    assert [alert for alert in EXPRESSIONS if f"alertname: {alert}\n" not in cases] == []


def test_every_alert_has_a_runbook() -> None:
    headings = re.findall("^## (.*)$", (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(EXPRESSIONS) == {heading for heading in headings if heading.startswith("Birnn")}
    rules = [rule for group in read_groups() for rule in group["rules"] if "alert" in rule]
    assert all(rule["annotations"]["runbook_url"].endswith(f"runbooks.md#{rule['alert'].lower()}") for rule in rules)


def test_the_operator_gets_the_same_rules() -> None:
    path = ROOT / "deploy" / "kubernetes" / "components" / "prometheus-rule" / "prometheus-rule.yaml"
    rule = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"]["groups"] == read_groups()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_no_alert_waits_for_a_job_of_ours(expression: str) -> None:
    """Whoever finds pods by their annotations calls the job something else."""
    absent = [call for call in re.findall(r"absent\(([^)]*)\)", expression) if "job" in call]
    assert not absent
