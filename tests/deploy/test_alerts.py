import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.queries import ALERTS, FROM_PROMETHEUS, alert_expressions, selectors, served_series

EXPRESSIONS = alert_expressions()
CASES = Path(__file__).with_name("alerts_test.yml")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: `prometheus`)")


def promtool(*arguments: str | Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_every_alert_is_promql_over_series_that_the_server_has(expression: str) -> None:
    names = {selector.name for selector in selectors(expression)}
    assert names
    assert names <= served_series() | FROM_PROMETHEUS


@needs_promtool
def test_prometheus_accepts_the_configuration_with_its_alerts() -> None:
    promtool("check", "config", ALERTS.with_name("prometheus.yml"))


@needs_promtool
def test_alerts_fire_on_what_they_are_for_and_keep_quiet_next_to_it() -> None:
    promtool("test", "rules", CASES)


def test_every_alert_has_a_case() -> None:
    cases = CASES.read_text(encoding="utf-8")
    assert [alert for alert in EXPRESSIONS if alert not in cases] == []
