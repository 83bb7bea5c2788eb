import itertools

import pytest

from tests.deploy.queries import FROM_PROMETHEUS, dashboard_queries, read_dashboard, selectors, served_series

QUERIES = dashboard_queries()


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_every_query_is_promql_over_series_that_the_server_has(query: str) -> None:
    names = {selector.name for selector in selectors(query)}
    assert names
    assert names <= served_series() | FROM_PROMETHEUS


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


@pytest.mark.parametrize(
    "series",
    [
        "birnn_requests_total",
        "birnn_request_seconds_bucket",
        "birnn_tokenize_seconds_sum",
        "birnn_queue_seconds_sum",
        "birnn_compute_seconds_sum",
        "birnn_batch_sequences_sum",
        "birnn_batch_padding_ratio_bucket",
        "birnn_tokens_total",
        "birnn_padded_tokens_total",
        "birnn_sequences_total",
        "birnn_queue_sequences",
        "birnn_sequence_errors_total",
        "birnn_unknown_tokens_total",
        "birnn_encoder_info",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ],
)
def test_the_dashboard_shows(series: str) -> None:
    assert any(selector.name == series for query in QUERIES.values() for selector in selectors(query))
