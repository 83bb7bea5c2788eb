from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from birnn_service.frontends.merged_metrics import MergedMetrics, write_counts
from birnn_service.metrics import Metrics


class Scraped:
    """An engine process's metrics, and what a scrape shows of them and the front-ends'."""

    def __init__(self) -> None:
        self.engine = Metrics()
        self.merged = MergedMetrics(self.engine.registry)
        self._registry = CollectorRegistry()
        self._registry.register(self.merged)

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = generate_latest(self._registry).decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
        assert len(found) == len(samples), "a series is there twice"
        return found

    def __call__(self, name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples().items() if found == name and wanted <= has)


def front_end(*seconds: float, code: str = "OK") -> Metrics:
    metrics = Metrics()
    for each in seconds:
        metrics.count_call("smiles", "Encode", code, each)
        metrics.of("smiles").tokenize_seconds.observe(each)
    return metrics


def test_counts_of_all_processes_are_added_series_by_series() -> None:
    scraped = Scraped()
    scraped.engine.count_call("smiles", "Encode", "OK", 0.02)
    scraped.merged.update(1, write_counts(front_end(0.02, 3.0).registry))
    scraped.merged.update(2, write_counts(front_end(0.02, code="NOT_FOUND").registry))
    assert scraped("birnn_requests_total", code="OK") == 3
    assert scraped("birnn_requests_total", code="NOT_FOUND") == 1
    assert scraped("birnn_request_seconds_count", encoder="smiles", method="Encode") == 4
    assert abs(scraped("birnn_request_seconds_sum") - 3.06) < 1e-9
    assert scraped("birnn_request_seconds_bucket", le="0.025") == 3
    assert scraped("birnn_request_seconds_bucket", le="+Inf") == 4
    assert scraped("birnn_tokenize_seconds_count") == 3


def test_a_histogram_s_buckets_stay_in_order_where_only_front_ends_have_it() -> None:
    scraped = Scraped()
    scraped.merged.update(1, write_counts(front_end(0.02).registry))
    bounds = [float(dict(labels)["le"]) for name, labels in scraped.samples() if name == "birnn_request_seconds_bucket"]
    assert bounds == sorted(bounds)
    assert len(bounds) > 5


def test_the_latest_report_of_a_front_end_replaces_the_one_before() -> None:
    scraped = Scraped()
    metrics = front_end(0.1)
    scraped.merged.update(1, write_counts(metrics.registry))
    metrics.count_call("smiles", "Encode", "OK", 0.1)
    scraped.merged.update(1, write_counts(metrics.registry))
    assert scraped("birnn_requests_total") == 2


def test_no_count_falls_when_a_front_end_ends_and_another_takes_its_place() -> None:
    scraped = Scraped()
    scraped.merged.update(1, write_counts(front_end(0.1, 0.2).registry))
    scraped.merged.end(1)
    assert scraped("birnn_requests_total") == 2
    scraped.merged.update(2, write_counts(front_end(0.3).registry))
    assert scraped("birnn_requests_total") == 3
    scraped.merged.end(2)
    scraped.merged.end(3)
    assert scraped("birnn_requests_total") == 3
    assert scraped("birnn_request_seconds_count") == 3


def test_gauges_and_the_process_are_the_engine_process_s_alone() -> None:
    scraped = Scraped()
    scraped.engine.encoder_ready.labels("smiles", "1").set(1)
    other = Metrics()
    other.encoder_ready.labels("smiles", "1").set(1)
    other.queue_tokens.labels("smiles").set(7)
    scraped.merged.update(1, write_counts(other.registry))
    assert scraped("birnn_encoder_ready") == 1
    assert scraped("birnn_queue_tokens") == 0
    assert b"process_" not in write_counts(other.registry)
    assert scraped("process_cpu_seconds_total") > 0
