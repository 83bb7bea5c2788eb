"""`python -m bench tenants`: what one greedy tenant costs another's single calls, in simulated time."""

from functools import partial
from pathlib import Path
from typing import Any

import click
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.encoders import MAX_LENGTH
from bench.markdown import table
from bench.results import OUT, QUICK, write_result
from bench.sequences import OPTION, read_sequences
from bench.simulation.device import PACKED
from bench.simulation.load import Recorded
from bench.simulation.neighbors import NEIGHBORS, Beside, beside
from bench.simulation.policies import Fifo
from birnn_bundle.atomic_file import replacing
from birnn_bundle.smiles import SmilesTokenizer

# A greedy tenant is one caller, not many addresses.
GREEDY = [name for name in NEIGHBORS if "ever new" not in name]
FIFO = "first come, first served"
# Weight of the greedy tenant beside 1 of the other.
WEIGHTS = (1.0, 4.0, 16.0)


def bound_of(result: Beside) -> float:
    """The promise, in seconds: three batches and 20 ms."""
    return 3 * result.batch + 0.02


@click.command()
@OPTION
@OUT
@QUICK
def tenants(file: Path, out: Path, quick: bool) -> None:
    """What one greedy tenant costs another's single calls, by weight, simulated; a table and a plot."""
    _, tokenized = read_sequences(file, SmilesTokenizer([]), MAX_LENGTH)
    lengths = Recorded(tokenized.batch.lengths)
    rows: list[dict[str, Any]] = []
    for name in GREEDY[:2] if quick else GREEDY:
        run = partial(beside, PACKED, NEIGHBORS[name], lengths)
        results = {f"weight {weight:g}": run(weight=weight) for weight in WEIGHTS}
        results[FIFO] = run(policy=lambda: Fifo(PACKED.max_rows))
        bound = max(bound_of(result) for key, result in results.items() if key != FIFO)
        rows.append(
            {
                "neighbor": name,
                "alone": max(result.alone for result in results.values()),
                "bound": bound,
                "worst": {key: result.worst for key, result in results.items()},
                "lost": {key: result.lost for key, result in results.items()},
            }
        )
    write_result(out, "tenants", {"rows": rows}, render)
    plot(rows, out / "tenants.png")


def render(result: dict[str, Any]) -> str:
    """A table of the longest single calls."""
    rows = result["rows"]
    kinds = list(rows[0]["worst"])
    header = ["what the greedy tenant sends", "alone", *kinds, "promised"]
    lines = [
        [row["neighbor"], *(f"{1000 * value:.1f} ms" for value in (row["alone"], *row["worst"].values(), row["bound"]))]
        for row in rows
    ]
    return table(header, lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The same as a PNG: a group of bars for each neighbor, with the promise as a line across it."""
    figure, axes = plt.subplots(figsize=(9, 5), dpi=150)
    kinds = list(rows[0]["worst"])
    height = 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        positions = [row + place * height for row in range(len(rows))]
        color = "0.75" if kind == FIFO else None
        label = kind if kind == FIFO else f"greedy tenant of {kind}"
        axes.barh(positions, [1000 * row["worst"][kind] for row in rows], height, label=label, color=color)
    for number, row in enumerate(rows):
        line = 1000 * row["bound"]
        axes.plot([line, line], [number - height / 2, number + 0.8 - height / 2], "k--", linewidth=1)
    axes.plot([], [], "k--", linewidth=1, label="promised: three batches and 20 ms")
    axes.set_xscale("log")
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(rows))], [row["neighbor"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("longest of the other tenant's single calls, ms (log scale)")
    axes.grid(True, axis="x", which="both", alpha=0.25)
    axes.set_xlim(1, 30_000)
    axes.legend(fontsize=8, loc="center right")
    figure.tight_layout()
    with replacing(path) as file:
        figure.savefig(file, format="png")
    plt.close(figure)
