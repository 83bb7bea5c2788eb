"""The tables of docs/metrics.md, from the definitions of the metrics."""

from collections.abc import Sequence
from pathlib import Path

from birnn_service.errors import Reason
from birnn_service.observe.definitions import Definition, definitions
from birnn_service.observe.metrics import FORGET_SECONDS, Metrics
from birnn_service.observe.rpc_durations import BUCKETS, LABELS, NAME, TEXT
from birnn_service.observe.tenant_metrics import TenantMetrics
from birnn_service.tenants import MOST_LABELS

MARK = "<!-- From here on written by `make monitoring`, from service/birnn_service/observe. -->\n"


def metrics_document(path: Path) -> str:
    """The text of docs/metrics.md at `path`: what is written there up to the mark, and tables of all metrics."""
    introduction, _, _ = path.read_text(encoding="utf-8").partition(MARK)
    return introduction + MARK + "".join(f"\n{part}" for part in _parts())


def _parts() -> list[str]:
    found = [*definitions(Metrics).values(), *definitions(TenantMetrics).values()]
    parts = []
    for title in dict.fromkeys(one.section for one in found):
        rows = [_row(one) for one in found if one.section == title]
        parts.append(_table(title, ("metric", "kind", "labels", "what"), rows))
    view = (f"`{NAME}`", "histogram", _listed(LABELS), TEXT)
    parts.append(_table("OpenTelemetry's names", ("metric", "kind", "labels", "what"), [view]))
    parts.append(
        _table("Why calls are refused", ("reason", "meaning"), [(f"`{reason}`", reason.text) for reason in Reason])
    )
    histograms = [*((one.name, one.buckets) for one in found if one.buckets), (NAME, BUCKETS)]
    bounds = [(f"`{name}`", ", ".join(f"{bound:g}" for bound in buckets)) for name, buckets in histograms]
    parts.append(_table("Buckets", ("histogram", "upper bounds"), bounds))
    limits = [
        ("minutes for which the series of a version stay after it was unloaded", f"{FORGET_SECONDS / 60:g}"),
        ("tenants that are told apart; all others are `other`", str(MOST_LABELS)),
    ]
    parts.append(_table("Limits", ("what", "number"), limits))
    return parts


def _row(one: Definition[object]) -> tuple[str, ...]:
    name = f"{one.name}_total" if one.kind == "counter" else one.name
    return f"`{name}`", one.kind, _listed(one.labels), one.text


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return f"## {title}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _listed(labels: tuple[str, ...]) -> str:
    return ", ".join(f"`{label}`" for label in labels)
