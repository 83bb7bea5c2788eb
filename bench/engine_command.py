"""`python -m bench engine`."""

import os
from pathlib import Path
from typing import Any

import click
import torch

from bench.encoders import MAX_LENGTH, random_bundle
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
from bench.machine import ROOT
from bench.markdown import table
from bench.peak import measure_peak
from bench.results import OUT, QUICK, write_result
from bench.sequences import OPTION, read_sequences
from birnn_bundle.smiles import SmilesTokenizer

ENCODERS = [("bigru", 1), ("bigru", 2), ("bilstm", 1), ("bilstm", 2)]
BATCHES = [1, 4, 8, 16, 32, 64]


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
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.15, show_default=True, help="Of each in a round.")
def engine(
    file: Path,
    out: Path,
    quick: bool,
    encoders: tuple[str, ...],
    batches: tuple[int, ...],
    rounds: int,
    seconds: float,
) -> None:
    """Our engines on one core, beside a bare session.run loop on equal lengths and PyTorch."""
    chosen = [item for item in ENCODERS if not encoders or f"{item[0]}-{item[1]}" in encoders]
    if not chosen:
        raise click.UsageError(f"no encoder is named {' or '.join(encoders)}")
    if quick:
        chosen, batches, rounds = chosen[:1], batches or (1, 8, 32), 2
    core = max(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    peak = measure_peak(core)
    results = [
        measure(architecture, layers, file, core, batches or tuple(BATCHES), rounds, seconds, quick)
        for architecture, layers in chosen
    ]
    result = {
        "peak": {"gflops": peak.gflops, "method": peak.method},
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
    rounds: int,
    seconds: float,
    quick: bool,
) -> dict[str, Any]:
    """Everything of one encoder."""
    bundle = random_bundle(ROOT / "build" / "bench" / "models", architecture, layers)
    assert isinstance(bundle.tokenizer, SmilesTokenizer)
    _, tokenized = read_sequences(file, bundle.tokenizer, MAX_LENGTH)
    with on_core(core):
        engines, missing = load_engines(bundle)
        contest = Contest.prepare(bundle, tokenized.batch, engines)
        rates: list[dict[str, Any]] = []
        for rows in batches:
            if rows > len(tokenized.batch):
                raise click.UsageError(f"batches of {rows} need as many sequences; {file} has {len(tokenized.batch)}")
            click.echo(f"{bundle.manifest.name}: batches of {rows}", err=True)
            rates += run_contest(contest, rows, rounds=rounds, seconds=seconds)
        lone = lone_latencies(contest, repeats=20 if quick else 100)
    pairs = lone_latencies_on_two_cores(bundle, repeats=20 if quick else 100) if _cores() >= 2 else {}
    return {
        "encoder": bundle.manifest.name,
        "flops_per_token": flops_per_token(bundle.manifest),
        "mean_length": float(tokenized.batch.lengths.mean()),
        "missing": missing,
        "rates": rates,
        "lone_seconds": lone,
        "lone_seconds_two_cores": pairs,
    }


def render(result: dict[str, Any]) -> str:
    """The tables."""
    peak = result["peak"]
    parts = [
        "# Engines on one core",
        f"E = 128, H = 256, random weights; lengths of {result['file']}; medians of {result['rounds']} rounds in turn. "
        f"GFLOP/s count 2 for a multiply-add of a true token, padding not, and the embedding as if it were not folded. "
        f"Peak: {peak['gflops']:.0f} GFLOP/s ({peak['method']}). `{BARE}`: every row {STEPS} tokens. Grouped: sorted "
        f"within {WINDOW:,} sequences.",
    ]
    for encoder in result["encoders"]:
        parts += [f"## {encoder['encoder']}", *_encoder_tables(encoder, peak["gflops"])]
    return "\n\n".join(parts)


def _encoder_tables(encoder: dict[str, Any], peak: float) -> list[str]:
    cells = {(rate["contestant"], rate["batch"]): rate for rate in encoder["rates"]}
    names = list(dict.fromkeys(name for name, _ in cells))
    batches = sorted({batch for _, batch in cells})
    header = [f"B = {batch}" for batch in batches]

    def rows(text: str, figure: Any) -> str:
        return table([text, *header], [[name, *(figure(cells[name, batch]) for batch in batches)] for name in names])

    def ratio(rate: dict[str, Any]) -> str:
        return f"{rate['gflops'] / cells[BARE, rate['batch']]['gflops']:.2f}x"

    tables = [
        rows("sequences/s", lambda rate: f"{rate['sequences_per_second']:,.0f}"),
        rows("GFLOP/s, share of peak", lambda rate: f"{rate['gflops']:.0f}, {rate['gflops'] / peak:.0%}"),
        rows("GFLOP/s over session.run's on equal lengths", ratio),
    ]
    lone = [[name, f"{1000 * seconds:.3f}"] for name, seconds in encoder["lone_seconds"].items()]
    pairs = encoder["lone_seconds_two_cores"].items()
    lone += [[f"{name}, two cores", f"{1000 * seconds:.3f}"] for name, seconds in pairs]
    tables.append(table([f"a lone sequence of {STEPS} tokens", "ms"], lone))
    if encoder["missing"]:
        tables.append("\n".join(f"- {name} is not here: {reason}" for name, reason in encoder["missing"].items()))
    return tables


def _cores() -> int:
    return len(os.sched_getaffinity(0))
