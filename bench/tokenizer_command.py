"""`python -m bench tokenizer`: SMILES per second on one core, by the size of a request."""

import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import click

from bench.encoders import MAX_LENGTH, VOCABULARY
from bench.engine import on_core
from bench.markdown import table
from bench.results import OUT, QUICK, write_result
from bench.sequences import OPTION, read_sequences
from birnn_bundle.smiles import SmilesTokenizer

SIZES = [1, 8, 32, 64, 512, 10_000]


@click.command()
@OPTION
@OUT
@QUICK
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0.01, 60), default=0.5, show_default=True, help="Of a size in a round."
)
def tokenizer(file: Path, out: Path, quick: bool, rounds: int, seconds: float) -> None:
    """SMILES tokenized per second on one core, by sequences a request."""
    if quick:
        rounds, seconds = 2, 0.1
    smiles = SmilesTokenizer.from_json(VOCABULARY.read_text(encoding="utf-8"))
    sequences, tokenized = read_sequences(file, smiles, MAX_LENGTH)
    with on_core(max(os.sched_getaffinity(0))):
        rates = measure(smiles, [sequence.encode() for sequence in sequences], rounds, seconds)
    result = {
        "file": file.name,
        "sequences": len(sequences),
        "mean_length": float(tokenized.batch.lengths.mean()),
        "rounds": rounds,
        "smiles_per_second": {str(size): rate for size, rate in rates.items()},
    }
    write_result(out, "tokenizer", result, render)


def measure(smiles: SmilesTokenizer, sequences: list[bytes], rounds: int, seconds: float) -> dict[int, float]:
    """SMILES per second by size of request, medians over rounds; a file that is too small is sent over and over."""
    rates: dict[int, list[float]] = {size: [] for size in SIZES}
    repeated = sequences * (1 + max(SIZES) // len(sequences))
    requests = {size: [repeated[start : start + size] for start in range(0, max(size, 2048), size)] for size in SIZES}
    for _ in range(rounds):
        for size, found in rates.items():
            number, start = 0, time.perf_counter()
            while (now := time.perf_counter()) < start + seconds:
                smiles.tokenize(requests[size][number % len(requests[size])], MAX_LENGTH)
                number += 1
            found.append(number * size / (now - start))
    return {size: median(found) for size, found in rates.items()}


def render(result: dict[str, Any]) -> str:
    """The table."""
    rows = [[f"{int(size):,}", f"{rate:,.0f}"] for size, rate in result["smiles_per_second"].items()]
    return "\n\n".join(
        [
            "# The SMILES tokenizer on one core",
            f"{result['file']}, {result['mean_length']:.0f} tokens a SMILES; medians of {result['rounds']} rounds.",
            table(["sequences a request", "SMILES/s"], rows),
        ]
    )
