import itertools
import re

import pytest

from birnn_service.observe.definitions import definitions
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.tenant_metrics import TenantMetrics
from tests.deploy.queries import (
    FROM_PROMETHEUS,
    dashboard_queries,
    read_dashboard,
    recorded_series,
    selectors,
    served_series,
)

QUERIES = dashboard_queries()


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_every_query_is_promql_over_series_that_the_server_has(query: str) -> None:
    names = {selector.name for selector in selectors(query)}
    assert names
    assert names <= served_series() | recorded_series() | FROM_PROMETHEUS


def test_no_panel_lies_on_another_or_leaves_the_grid() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in read_dashboard()["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        covered = set(
            itertools.product(range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"]))
        )
        assert not covered & cells, panel["title"]
        cells |= covered


def test_panels_have_ids_of_their_own_and_only_rows_have_no_query() -> None:
    panels = read_dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel.get("targets") for panel in panels if panel["type"] != "row")


def test_every_panel_says_where_its_numbers_come_from_and_what_may_be_chosen() -> None:
    dashboard = read_dashboard()
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert {"job", "instance", "encoder"} <= variables
    used = set(re.findall(r"\$(\w+)", " ".join(dashboard_texts()))) - {"__rate_interval"}
    assert used <= variables
    assert all("$job" in query for query in dashboard_texts())


def dashboard_texts() -> list[str]:
    """Queries as they are written, with variables in them."""
    return [target["expr"] for panel in read_dashboard()["panels"] for target in panel.get("targets", [])]


# What is told elsewhere: alerts ask for it.
NOT_SHOWN = ("birnn_certificate_", "birnn_call_memory_limit", "birnn_shadow_", "birnn_spans_")


@pytest.mark.parametrize(
    "series", sorted(one.name for of in (Metrics, TenantMetrics) for one in definitions(of).values())
)
def test_the_dashboard_shows(series: str) -> None:
    shown = {selector.name or "" for query in QUERIES.values() for selector in selectors(query)}
    assert series.startswith(NOT_SHOWN) or any(name.startswith(series) for name in shown)
