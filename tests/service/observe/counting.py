"""What metrics have counted."""

from birnn_service.observe.metrics import Metrics


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    """Sum of all samples of a series that have at least these labels; 0 where there are none."""
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())
