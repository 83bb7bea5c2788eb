import promql_parser
import pytest

from birnn_service.observe import rpc_durations
from birnn_service.observe.definitions import definitions
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.tenant_metrics import TenantMetrics
from tests.deploy.queries import alert_expressions, dashboard_queries, recorded_series, recording_expressions, selectors

EXPRESSIONS = {**dashboard_queries(), **alert_expressions(), **recording_expressions()}
# What Prometheus adds to every series.
FROM_SCRAPING = {"job", "instance", "namespace"}
SUFFIXES = ("_bucket", "_sum", "_count", "_total")


def labels_by_metric() -> dict[str, set[str]]:
    """Labels of each of the server's own metrics, by name without suffix."""
    found = [*definitions(Metrics).values(), *definitions(TenantMetrics).values()]
    labels = {one.name: set(one.labels) for one in found} | {rpc_durations.NAME: set(rpc_durations.LABELS)}
    return labels | {name: set() for name in recorded_series()}


LABELS = labels_by_metric()


def labels_of(selector: promql_parser.VectorSelector) -> set[str]:
    """Labels that the series of a selector have."""
    name = selector.name or ""
    metric = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.removesuffix(suffix) in LABELS), name)
    return LABELS.get(metric, set()) | FROM_SCRAPING | ({"le"} if name.endswith("_bucket") else set())


def groupings(expression: str) -> list[tuple[set[str], set[str]]]:
    """For each aggregation: the labels that it keeps, and those that it could keep."""
    found: list[tuple[set[str], set[str]]] = []

    def collect(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            inside = [labels_of(selector) for selector in selectors(str(node.expr))]
            found.append((set(node.modifier.labels), set().union(*inside)))

    promql_parser.walk(promql_parser.parse(expression), pre_visit=collect)
    return found


def test_the_servers_metrics_and_their_labels_are_found() -> None:
    assert LABELS["birnn_requests"] == {"encoder", "version", "method", "code"}
    assert groupings("sum by (le) (rate(birnn_compute_seconds_bucket[5m]))") == [
        ({"le"}, {"encoder", "version", "le", *FROM_SCRAPING})
    ]


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_every_label_that_a_query_selects_or_groups_by_exists(expression: str) -> None:
    for selector in selectors(expression):
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels_of(selector)
    for kept, possible in groupings(expression):
        assert kept <= possible
