"""Which files are generated, and from what."""

from pathlib import Path

from deploy.monitoring.metrics_document import metrics_document

ROOT = Path(__file__).parents[2]


def generated() -> dict[Path, str]:
    """The content of each generated file."""
    return {ROOT / "docs" / "metrics.md": metrics_document(ROOT / "docs" / "metrics.md")}
