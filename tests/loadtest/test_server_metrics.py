import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from birnn_loadtest.server_metrics import MetricsError, MetricsSource, MetricsWatch, Reading, ServerSplit
from birnn_loadtest.server_names import OURS

BEFORE = """\
# TYPE birnn_request_seconds histogram
birnn_request_seconds_bucket{encoder="smiles",le="0.01",method="Encode"} 10
birnn_request_seconds_bucket{encoder="smiles",le="0.1",method="Encode"} 10
birnn_request_seconds_bucket{encoder="smiles",le="+Inf",method="Encode"} 10
birnn_request_seconds_count{encoder="smiles",method="Encode"} 10
birnn_request_seconds_sum{encoder="smiles",method="Encode"} 0.05
# TYPE birnn_queue_sequences gauge
birnn_queue_sequences{encoder="smiles"} 3
# TYPE birnn_requests counter
birnn_requests_total{encoder="smiles",code="OK"} 10
"""
# A newer server: further labels, finer buckets, one more series.
AFTER = """\
# TYPE birnn_request_seconds histogram
birnn_request_seconds_bucket{encoder="smiles",version="2",code="OK",le="0.01",method="Encode"} 60
birnn_request_seconds_bucket{encoder="smiles",version="2",code="OK",le="0.1",method="Encode"} 100
birnn_request_seconds_bucket{encoder="smiles",version="2",code="OK",le="+Inf",method="Encode"} 110
birnn_request_seconds_sum{encoder="smiles",version="2",code="OK",method="Encode"} 4.05
birnn_request_seconds_bucket{encoder="other",version="2",code="OK",le="+Inf",method="Encode"} 7000
birnn_request_seconds_sum{encoder="other",version="2",code="OK",method="Encode"} 7000
birnn_request_seconds_bucket{encoder="smiles",version="3",code="OK",le="0.01",method="ModelInfer"} 0
birnn_request_seconds_bucket{encoder="smiles",version="3",code="OK",le="0.1",method="ModelInfer"} 0
birnn_request_seconds_bucket{encoder="smiles",version="3",code="OK",le="+Inf",method="ModelInfer"} 0
birnn_request_seconds_sum{encoder="smiles",version="3",code="OK",method="ModelInfer"} 0
# TYPE birnn_queue_sequences gauge
birnn_queue_sequences{encoder="smiles"} 5
# TYPE birnn_requests counter
birnn_requests_total{encoder="smiles",version="2",code="OK"} 100
birnn_requests_total{encoder="smiles",version="2",code="UNAVAILABLE"} 10
"""


def split(before: str = BEFORE, after: str = AFTER) -> ServerSplit:
    readings = [Reading.parse(text, ["smiles"], moment) for moment, text in enumerate((before, after))]
    return ServerSplit.between(readings, [])


def test_what_came_between_is_summed_over_all_labels_but_the_encoder() -> None:
    request = split().stages["request"]
    assert request.count == 100
    assert request.mean == pytest.approx(0.04)
    assert request.percentile(50) == pytest.approx(0.01)
    assert request.percentile(75) == pytest.approx(0.01 + 0.09 * 25 / 40)
    # Beyond the last bound nothing is known but that.
    assert request.percentile(99) == pytest.approx(0.1)
    assert split().counters["calls"] == 100
    assert split().waiting == [(0, 3), (1, 5)]


def test_what_the_server_does_not_have_is_said_and_nothing_made_up() -> None:
    found = split()
    assert "birnn_compute_seconds" in found.missing
    assert "birnn_batch_sequences" in found.missing
    assert "compute" not in found.stages
    assert found.rest is None
    assert found.batches is None


def test_what_nothing_was_counted_of_yet_is_not_missing() -> None:
    more = "# TYPE birnn_cache_hits counter\n# TYPE birnn_compute_seconds histogram\n"
    found = split(after=AFTER + more)
    assert found.counters["cache_hits"] == 0
    assert found.stages["compute"].mean is None
    assert not {"birnn_cache_hits_total", "birnn_compute_seconds"} & set(found.missing)


def test_a_restart_is_noticed() -> None:
    assert "restarted" in split(AFTER, BEFORE).problems[0]


def test_one_reading_says_nothing() -> None:
    found = ServerSplit.between([Reading.parse(AFTER, ["smiles"], 0)], ["down"])
    assert not found.stages
    assert found.problems[0] == "down"
    assert len(found.problems) == 2


def test_the_rest_is_what_no_stage_accounts_for() -> None:
    text = ""
    for name, mean in (("request", 0.010), ("tokenize", 0.001), ("queue", 0.003), ("compute", 0.002)):
        text += f"# TYPE birnn_{name}_seconds histogram\n"
        text += f'birnn_{name}_seconds_bucket{{encoder="smiles",le="+Inf"}} 10\n'
        text += f'birnn_{name}_seconds_sum{{encoder="smiles"}} {10 * mean}\n'
    assert split("", text).rest == pytest.approx(0.004)


# What Triton 2.51 says: counters without "_total", sums without buckets.
TRITON = """\
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="smiles",version="1"}} {0}
nv_inference_request_success{{model="other",version="1"}} 9000
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{{model="smiles",reason="BACKEND",version="1"}} 3
nv_inference_request_failure{{model="smiles",reason="REJECTED",version="1"}} 4
# TYPE nv_inference_count counter
nv_inference_count{{model="smiles",version="1"}} {1}
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{{model="smiles",version="1"}} {2}
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{{model="smiles",version="1"}} {3}
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{{model="smiles",version="1"}} {4}
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{{model="smiles",version="1"}} {5}
"""


def test_tritons_metrics_become_the_stages_that_mean_the_same() -> None:
    found = split(TRITON.format(100, 500, 50, 1e6, 2e5, 7e5), TRITON.format(200, 900, 90, 2e6, 5e5, 12e5))
    assert found.missing == found.problems == []
    means = {stage: buckets.mean for stage, buckets in found.stages.items()}
    assert means == {"request": pytest.approx(0.01), "queue": pytest.approx(0.003), "compute": pytest.approx(0.005)}
    assert found.rest == pytest.approx(0.002)
    assert found.batches is not None
    assert (found.batches.count, found.batches.mean) == (40, 10)
    # Of a sum and a count nothing is known but the mean.
    assert found.stages["request"].percentile(50) is None
    assert found.counters == {"calls": 100, "failed_calls": 0, "sequences": 400}


@contextmanager
def serving(status: int, token: str = "") -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = not token or self.headers.get("Authorization") == f"Bearer {token}"
            self.send_response(status if right else 401)
            self.end_headers()
            self.wfile.write(BEFORE.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def test_a_token_goes_along() -> None:
    with serving(200, "secret") as url:
        assert MetricsSource(url, ["smiles"], "secret", None).read().value("birnn_requests_total") == 10
        with pytest.raises(MetricsError, match=r"HTTP 401; the token needs the right `metrics`"):
            MetricsSource(url, ["smiles"], None, None).read()


def test_what_cannot_be_read_is_told_once() -> None:
    with serving(500) as url, MetricsWatch(MetricsSource(url, ["smiles"], None, None), 0.0, 0.001) as watch:
        while not watch._problems:
            pass
    assert sum("HTTP 500" in problem for problem in watch.split().problems) == 1
    with pytest.raises(MetricsError, match="cannot be read"):
        MetricsSource("http://127.0.0.1:1/metrics", ["smiles"], None, None).read()


def test_readings_are_bounded_and_keep_the_first_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birnn_loadtest.server_metrics.MOST_READINGS", 10)

    class Counting:
        def __init__(self) -> None:
            self.count = 0

        def read(self) -> Reading:
            self.count += 1
            return Reading(self.count, OURS, {}, {}, ())

    source = Counting()
    watch = MetricsWatch(source, 0.0, 1.0)  # type: ignore[arg-type]
    for _ in range(500):
        watch._read()
    assert len(watch._readings) <= 11
    assert (watch._readings[0].time, watch._readings[-1].time) == (1, 500)
