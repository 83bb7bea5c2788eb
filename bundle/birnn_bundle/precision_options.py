"""What commands that measure reduced precisions have in common: their options, and what they print."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from birnn_bundle.precisions import LEAST_MIN_COSINE, MIN_COSINES, REDUCED, PrecisionRecord, ReducedPrecision

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def _read_min_cosines(
    context: click.Context, parameter: click.Parameter, entries: tuple[str, ...]
) -> dict[ReducedPrecision, float]:
    """`PRECISION=COSINE`, each precision at most once."""
    found: dict[ReducedPrecision, float] = {}
    for entry in entries:
        name, _, text = entry.partition("=")
        precision = next((one for one in REDUCED if one == name), None)
        try:
            cosine = float(text)
        except ValueError:
            cosine = math.nan
        if precision is None or precision in found or not LEAST_MIN_COSINE <= cosine < 1:
            raise click.BadParameter(
                f"{entry!r} is not PRECISION=COSINE with one of {', '.join(REDUCED)}, each once, and a number from "
                f"{LEAST_MIN_COSINE} to below 1, as in int8=0.9995"
            )
        found[precision] = cosine
    return found


QUALITY: Callable[[AnyFunction], AnyFunction] = click.option(
    "--quality",
    metavar="FILE:COLUMN:TARGET",
    help="A .csv or .tsv with a column of sequences and one of a measured quantity: the bundle records r2 of a ridge "
    "regression on float32 and on each reduced precision. Needs scikit-learn.",
)
MIN_COSINE: Callable[[AnyFunction], AnyFunction] = click.option(
    "--min-cosine",
    "min_cosines",
    multiple=True,
    callback=_read_min_cosines,
    metavar="PRECISION=COSINE",
    help="Minimum cosine to float32 for a reduced precision to be served; repeatable. [default: "
    f"{', '.join(f'{name}={cosine}' for name, cosine in MIN_COSINES.items())}]",
)


def told_records(records: Mapping[ReducedPrecision, PrecisionRecord]) -> list[str]:
    """A line for each precision."""
    return [f"{precision}: {_told(record)}" for precision, record in records.items()]


def _told(record: PrecisionRecord) -> str:
    parts = []
    for kind, found in (("golden", record.golden), ("other", record.others)):
        if found is not None:
            centered = (
                f", centered {found.least_centered_cosine:.6f}" if found.least_centered_cosine is not None else ""
            )
            parts.append(
                f"least cosine {found.least_cosine:.6f}{centered} on {found.sequences:,} {kind} sequences, "
                f"{found.least_token_cosine:.6f} on their tokens"
            )
    if (quality := record.quality) is not None:
        parts.append(f"r2 {quality.reduced:.4f} instead of {quality.float32:.4f} on {quality.data}")
    parts.append(f"not allowed: {record.refusal}" if record.refusal else "allowed")
    return f"{'; '.join(parts)} ({record.engine})"
