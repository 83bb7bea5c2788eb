"""`python -m bench engine`."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from bench.contestant import ROUNDING_FLOAT32, ROUNDING_REDUCED, compare_with_float64
from bench.encoders import MAX_LENGTH, random_bundle, random_encoder
from bench.engine import (
    BARE,
    STEPS,
    WINDOW,
    Contest,
    flops_per_token,
    load_engines,
    lone_latencies,
    lone_latencies_on_two_cores,
    on_core,
    run_contest,
)
from bench.libraries.library import LIBRARIES, Library, workers
from bench.machine import ROOT
from bench.markdown import table
from bench.peak import measure_peak
from bench.results import OUT, QUICK, write_result
from bench.sequences import OPTION, read_sequences
from birnn_bundle.smiles import SmilesTokenizer

ENCODERS = [("bigru", 1), ("bigru", 2), ("bilstm", 1), ("bilstm", 2)]
BATCHES = [1, 4, 8, 16, 32, 64]
# Rows of the batches whose vectors are compared with float64.
COMPARED_ROWS = 8


@click.command()
@OPTION
@OUT
@QUICK
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="ARCHITECTURE-LAYERS",
    help=f"Only these of {', '.join(f'{architecture}-{layers}' for architecture, layers in ENCODERS)}.",
)
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1, 1024), help="Only these batch sizes.")
@click.option(
    "--library",
    "names",
    multiple=True,
    type=click.Choice([*dict.fromkeys(library.runner for library in LIBRARIES), "none"]),
    help="Only these libraries besides ours; all by default, each in a virtual environment that is made for it.",
)
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.15, show_default=True, help="Of each in a round.")
def engine(
    file: Path,
    out: Path,
    quick: bool,
    encoders: tuple[str, ...],
    batches: tuple[int, ...],
    names: tuple[str, ...],
    rounds: int,
    seconds: float,
) -> None:
    """Our engines on one core, beside a bare session.run loop on equal lengths, PyTorch, oneDNN and OpenVINO."""
    chosen = [item for item in ENCODERS if not encoders or f"{item[0]}-{item[1]}" in encoders]
    if not chosen:
        raise click.UsageError(f"no encoder is named {' or '.join(encoders)}")
    if quick:
        chosen, batches, rounds = chosen[:1], batches or (1, 8, 32), 2
    libraries = [library for library in LIBRARIES if not names or library.runner in names]
    core = max(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    peak = measure_peak(core)
    results = [
        measure(architecture, layers, file, core, batches or tuple(BATCHES), libraries, rounds, seconds, quick)
        for architecture, layers in chosen
    ]
    result = {
        "peak": {"rates": peak.rates, "method": peak.method},
        "rounds": rounds,
        "seconds": seconds,
        "file": file.name,
        "encoders": results,
    }
    write_result(out, "engine", result, render)


def measure(
    architecture: str,
    layers: int,
    file: Path,
    core: int,
    batches: tuple[int, ...],
    libraries: Sequence[Library],
    rounds: int,
    seconds: float,
    quick: bool,
) -> dict[str, Any]:
    """Everything of one encoder."""
    bundle = random_bundle(ROOT / "build" / "bench" / "models", architecture, layers)
    assert isinstance(bundle.tokenizer, SmilesTokenizer)
    _, tokenized = read_sequences(file, bundle.tokenizer, MAX_LENGTH)
    encoder, _ = random_encoder(architecture, layers)
    with (
        tempfile.TemporaryDirectory(prefix="birnn-bench-") as folder,
        workers(libraries, bundle, encoder, Path(folder), core) as (started, not_here),
        on_core(core),
    ):
        engines, missing = load_engines(bundle)
        contest = Contest.prepare(bundle, tokenized.batch, engines, started)
        click.echo(f"{bundle.manifest.name}: vectors beside those of float64", err=True)
        contestants = [*contest.contestants(COMPARED_ROWS), *contest.careless(COMPARED_ROWS)]
        accuracy = compare_with_float64(contestants, contest.encoder)
        rates: list[dict[str, Any]] = []
        for rows in batches:
            if rows > len(tokenized.batch):
                raise click.UsageError(f"batches of {rows} need as many sequences; {file} has {len(tokenized.batch)}")
            click.echo(f"{bundle.manifest.name}: batches of {rows}", err=True)
            rates += run_contest(contest, rows, rounds=rounds, seconds=seconds)
        lone = lone_latencies(contest, repeats=20 if quick else 100)
        versions = {worker.library.label: worker.version for worker in started}
    pairs = lone_latencies_on_two_cores(bundle, repeats=20 if quick else 100) if _cores() >= 2 else {}
    return {
        "encoder": bundle.manifest.name,
        "flops_per_token": flops_per_token(bundle.manifest),
        "mean_length": float(tokenized.batch.lengths.mean()),
        "missing": missing | not_here,
        "versions": versions,
        "accuracy": accuracy,
        "rates": rates,
        "lone_seconds": lone,
        "lone_seconds_two_cores": pairs,
    }


def render(result: dict[str, Any]) -> str:
    """The tables."""
    peak = result["peak"]
    peaks = ", ".join(f"{precision} {rate:.0f} GFLOP/s" for precision, rate in peak["rates"].items())
    parts = [
        "# Engines on one core",
        f"E = 128, H = 256, random weights; lengths of {result['file']}; medians of {result['rounds']} rounds in turn. "
        f"GFLOP/s count 2 for a multiply-add of a true token, padding not, and the embedding as if it were not folded. "
        f"Peak: {peaks} ({peak['method']}). `{BARE}`: every row {STEPS} tokens. Grouped: sorted "
        f"within {WINDOW:,} sequences.",
        f"Error: the largest difference of a number from PyTorch in float64. A row is wrong where that is beyond what "
        f"rounding explains: {ROUNDING_FLOAT32:g} in float32, {ROUNDING_REDUCED:g} in fewer bits. oneDNN knows no "
        "lengths: in rows of mixed lengths each direction runs by itself, with the backward one's rows flipped.",
    ]
    for encoder in result["encoders"]:
        parts += [f"## {encoder['encoder']}", *_encoder_tables(encoder, peak["rates"])]
    return "\n\n".join(parts)


def _encoder_tables(encoder: dict[str, Any], peaks: dict[str, float]) -> list[str]:
    cells = {(rate["contestant"], rate["batch"]): rate for rate in encoder["rates"]}
    names = list(dict.fromkeys(name for name, _ in cells))
    batches = sorted({batch for _, batch in cells})
    header = [f"B = {batch}" for batch in batches]
    wrong = {row["contestant"] for row in encoder["accuracy"] if not row["right"]}

    def named(name: str) -> str:
        # Its vectors are wrong, so its speed does not matter.
        return f"{name} (wrong vectors)" if name in wrong else name

    def rows(text: str, figure: Any) -> str:
        return table(
            [text, *header], [[named(name), *(figure(cells[name, batch]) for batch in batches)] for name in names]
        )

    def share(rate: dict[str, Any]) -> str:
        peak = peaks.get(_precision_of(rate["contestant"]))
        return f"{rate['gflops']:.0f}" + (f", {rate['gflops'] / peak:.0%}" if peak else "")

    def ratio(rate: dict[str, Any]) -> str:
        return f"{rate['gflops'] / cells[BARE, rate['batch']]['gflops']:.2f}x"

    tables = [
        rows("sequences/s", lambda rate: f"{rate['sequences_per_second']:,.0f}"),
        rows("GFLOP/s, share of its precision's peak", share),
        rows("GFLOP/s over session.run's on equal lengths", ratio),
    ]
    tables.append(_accuracy_table(encoder["accuracy"]))
    lone = [[name, f"{1000 * seconds:.3f}"] for name, seconds in encoder["lone_seconds"].items()]
    pairs = encoder["lone_seconds_two_cores"].items()
    lone += [[f"{name}, two cores", f"{1000 * seconds:.3f}"] for name, seconds in pairs]
    tables.append(table([f"a lone sequence of {STEPS} tokens", "ms"], lone))
    if encoder["versions"]:
        tables.append("; ".join(f"{name}: {version}" for name, version in encoder["versions"].items()))
    if encoder["missing"]:
        tables.append("\n".join(f"- {name} is not here: {reason}" for name, reason in encoder["missing"].items()))
    return tables


def _precision_of(contestant: str) -> str:
    """The precision in the name of a contestant, float32 where there is none."""
    words = contestant.partition(",")[0].split()
    return next((precision for precision in ("bf16", "int8") if precision in words), "float32")


def _accuracy_table(accuracy: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            row["contestant"],
            f"{row['padding']:.0%}",
            f"{row['error']:.1e}",
            f"{row['cosine']:.6f}",
            "" if row["right"] else "**wrong**",
        ]
        for row in accuracy
    ]
    header = [f"batches of {COMPARED_ROWS}", "padding computed", "largest error", "least cosine", ""]
    return table(header, lines)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
