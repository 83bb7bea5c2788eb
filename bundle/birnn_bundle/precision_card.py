"""The part of a model card that tells what reduced precisions cost."""

import re
from collections.abc import Mapping

from birnn_bundle.numerals import counted
from birnn_bundle.precisions import PrecisionRecord, ReducedPrecision

HEADING = "## Reduced precision"
# Up to the next heading of the same level, or the end.
_SECTION = re.compile(rf"\n*^{HEADING}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def precision_section(records: Mapping[ReducedPrecision, PrecisionRecord]) -> str:
    """Markdown about what was measured; empty where nothing was."""
    measured = {name: record for name, record in records.items() if record.golden is not None}
    if not measured:
        return ""
    head = "| precision | measured on | least cosine to float32 | centered | of tokens | largest error | served |"
    rows = [row for name, record in measured.items() for row in _rows(name, record)]
    return "\n\n".join([HEADING, "\n".join([head, f"|{' --- |' * 7}", *rows]), *_quality(measured)])


def with_precision_section(card: str, records: Mapping[ReducedPrecision, PrecisionRecord]) -> str:
    """A model card with this section at its end, in place of one that it had."""
    parts = [_SECTION.sub("\n\n", card).strip(), precision_section(records)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(name: str, record: PrecisionRecord) -> list[str]:
    served = (
        f"no: {record.refusal}" if record.refusal else f"where the golden cosines are at least {record.min_cosine:g}"
    )
    rows = []
    for kind, found in (("golden", record.golden), ("other", record.others)):
        if found is not None:
            centered = "" if found.least_centered_cosine is None else f"{found.least_centered_cosine:.6f}"
            cells = (
                *(f"{name}, {record.engine}", f"{found.sequences:,} {kind} sequences", f"{found.least_cosine:.6f}"),
                *(centered, f"{found.least_token_cosine:.6f}", f"{found.max_error:.1e}", served),
            )
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def _quality(records: Mapping[ReducedPrecision, PrecisionRecord]) -> list[str]:
    """One sentence for each quality set, with all precisions that were tried on it."""
    by_set: dict[tuple[str, int, float], list[str]] = {}
    for name, record in records.items():
        if (found := record.quality) is not None:
            by_set.setdefault((found.data, found.sequences, found.float32), []).append(f"{found.reduced:.4f} in {name}")
    return [
        f"r2 of a ridge regression on `{data}` ({counted(sequences, 'sequence')}, mean over five folds): "
        f"{float32:.4f} in float32, {', '.join(reduced)}."
        for (data, sequences, float32), reduced in by_set.items()
    ]
