from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from birnn_service.frontends.counts import Reporter, add_report, end_reports
from birnn_service.observe.metrics import Metrics
from tests.service.observe.counting import counted

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def front_end(*seconds: float, code: str = "OK", number: int = 1) -> Metrics:
    metrics = Metrics(f"frontend-{number}")
    for each in seconds:
        metrics.of(("smiles", "1")).count_call("Encode", code, each)
        metrics.of(("smiles", "1")).tokenize_seconds.observe(each)
    return metrics


def test_counts_of_all_processes_are_added_series_by_series() -> None:
    engine = Metrics()
    engine.of(("smiles", "1")).count_call("Encode", "OK", 0.02)
    add_report(engine, 1, Reporter(front_end(0.02, 3.0)).report())
    add_report(engine, 2, Reporter(front_end(0.02, code="NOT_FOUND")).report())
    assert counted(engine, "birnn_requests_total", code="OK") == 3
    assert counted(engine, "birnn_requests_total", code="NOT_FOUND") == 1
    assert counted(engine, "birnn_request_seconds_count", encoder="smiles", method="Encode") == 4
    assert abs(counted(engine, "birnn_request_seconds_sum") - 3.06) < 1e-9
    assert counted(engine, "birnn_request_seconds_bucket", le="0.02") == 3
    assert counted(engine, "birnn_request_seconds_bucket", le="+Inf") == 4
    assert counted(engine, "birnn_tokenize_seconds_count") == 3
    samples = [
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(generate_latest(engine.registry).decode())
        for sample in family.samples
    ]
    assert len(set(samples)) == len(samples), "a series is there twice"


def test_a_report_holds_what_came_since_the_one_before() -> None:
    engine, metrics = Metrics(), front_end(0.1)
    reporter = Reporter(metrics)
    add_report(engine, 1, reporter.report())
    metrics.of(("smiles", "1")).count_call("Encode", "OK", 0.1)
    add_report(engine, 1, reporter.report())
    add_report(engine, 1, reporter.report())
    assert counted(engine, "birnn_requests_total") == 2
    assert counted(engine, "birnn_request_seconds_count") == 2


def test_no_count_falls_when_a_front_end_ends_and_another_takes_its_place() -> None:
    engine = Metrics()
    add_report(engine, 1, Reporter(front_end(0.1, 0.2)).report())
    end_reports(engine, 1)
    assert counted(engine, "birnn_requests_total") == 2
    add_report(engine, 2, Reporter(front_end(0.3)).report())
    assert counted(engine, "birnn_requests_total") == 3
    end_reports(engine, 2)
    end_reports(engine, 3)
    assert counted(engine, "birnn_requests_total") == 3
    assert counted(engine, "birnn_request_seconds_count") == 3


def test_series_that_begin_at_0_are_reported_too() -> None:
    engine, metrics = Metrics(), Metrics("frontend-1")
    metrics.begin(("smiles", "1"))
    metrics.take_calls(["Encode"])
    add_report(engine, 1, Reporter(metrics).report())
    labels = {"encoder": "smiles", "version": "1", "method": "Encode", "code": "INTERNAL"}
    assert engine.registry.get_sample_value("birnn_requests_total", labels) == 0


def test_traces_come_along() -> None:
    engine, metrics = Metrics(), Metrics("frontend-1")
    metrics.of(("smiles", "1")).count_call("Encode", "OK", 0.3, TRACE)
    add_report(engine, 1, Reporter(metrics).report())
    (family,) = engine.request_seconds.collect()
    (exemplar,) = [sample.exemplar for sample in family.samples if sample.exemplar]
    assert exemplar.labels == {"trace_id": TRACE}
    assert exemplar.value == 0.3


def test_what_is_read_is_told_by_process_and_goes_with_it() -> None:
    engine, metrics = Metrics(), Metrics("frontend-2")
    calls = 3
    engine.calls_limit.read_one(lambda: 7, "engine")
    metrics.calls_limit.read_one(lambda: calls, "frontend-2")
    reporter = Reporter(metrics)
    add_report(engine, 5, reporter.report())
    calls = 4
    add_report(engine, 5, reporter.report())
    assert counted(engine, "birnn_calls_limit", process="frontend-2") == 4
    assert counted(engine, "birnn_calls_limit") == 11
    end_reports(engine, 5)
    assert counted(engine, "birnn_calls_limit") == 7
