"""The options of `python -m bench.peers`."""

import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import click

from bench.encoders import MAX_LENGTH, random_bundle
from bench.h2load import H2Load
from bench.loads import LOADS, Load
from bench.machine import ROOT, describe_machine
from bench.peers.comparison import Comparison
from bench.peers.mlserver import MLServer
from bench.peers.ours import VARIANTS, Ours
from bench.peers.perf_analyzer import PerfAnalyzer
from bench.peers.ray_serve import RayServe
from bench.peers.records import Records
from bench.peers.report import FACTS_FILE, write_report
from bench.peers.server import Server
from bench.peers.triton import Triton
from bench.sequences import OPTION, read_sequences
from birnn_bundle.atomic_file import replace_text
from birnn_bundle.cells import Architecture
from birnn_bundle.smiles import SmilesTokenizer

PEERS: dict[str, Callable[[], Server]] = {"triton": Triton, "mlserver": MLServer, "ray": RayServe}
SWEEP = [1, 2, 4, 8, 16, 32, 64, 128]
STEPS = ["search", "rounds", "sweep", "report"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("steps", nargs=-1, type=click.Choice(STEPS))
@OPTION
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "build" / "bench" / "peers",
    show_default="build/bench/peers",
    help="Report folder. Rounds are added to those it holds, so a long comparison can be taken in pieces.",
)
@click.option(
    "--peer", "peers", multiple=True, type=click.Choice([*PEERS, "none"]), help="Only these servers besides ours."
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=click.Choice(list(VARIANTS)),
    help="Only these of our servers; all by default, unless --serve-args are given.",
)
@click.option(
    "--serve-args",
    multiple=True,
    help="Further arguments of `birnn serve`, in one string, for one more of our servers.",
)
@click.option("--load", "loads", multiple=True, type=click.Choice(list(LOADS)), help="Only these loads.")
@click.option(
    "--generator",
    type=click.Choice(["perf_analyzer", "asyncio", "both"]),
    default="both",
    show_default=True,
    help="Load generator; of both, the search uses asyncio and the sweep perf_analyzer. Streams and HTTP take asyncio.",
)
@click.option(
    "--front-end/--no-front-end",
    default=True,
    show_default=True,
    help="Whether to measure the front ends alone with h2load (Debian's nghttp2-client).",
)
@click.option("--rounds", "count", type=click.IntRange(1, 100), default=3, show_default=True, help="Rounds to add.")
@click.option(
    "--window", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Seconds of a third of a run."
)
@click.option("--quick", is_flag=True, help="A short look: one round, short windows, every third candidate, no sweep.")
@click.option("--architecture", type=click.Choice(get_args(Architecture)), default="bigru", show_default=True)
@click.option("--layers", type=click.IntRange(1, 8), default=1, show_default=True)
@click.option("--server-cores", help="Cores of the servers, as 0,1; all by default.")
@click.option("--client-cores", help="Cores of the load generators; all by default.")
def main(
    steps: tuple[str, ...],
    file: Path,
    out: Path,
    peers: tuple[str, ...],
    variants: tuple[str, ...],
    serve_args: tuple[str, ...],
    loads: tuple[str, ...],
    generator: str,
    front_end: bool,
    count: int,
    window: float,
    quick: bool,
    architecture: str,
    layers: int,
    server_cores: str | None,
    client_cores: str | None,
) -> None:
    """Measure Triton, MLServer, Ray Serve and ours, one at a time, with the same graph, tokenizer, cores and load.

    STEPS are of: search (for the other servers' best settings), rounds (the comparison), sweep (throughput against p99
    for 1 to 128 calls in flight), report. All of them by default; what has been measured stays in the folder.
    """
    # A server has a process group of its own, and would go on.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    chosen = steps or tuple(step for step in STEPS if not (quick and step == "sweep"))
    records = Records(out.resolve())
    if set(chosen) == {"report"}:
        write_report(out, records.all(), _read_facts(out))
        return
    if quick:
        count, window = 1, min(window, 1.0)
    bundle = random_bundle((ROOT / "build" / "bench" / "models").resolve(), architecture, layers)
    assert isinstance(bundle.tokenizer, SmilesTokenizer)
    sequences, tokenized = read_sequences(file, bundle.tokenizer, MAX_LENGTH)
    selected = [LOADS[name] for name in loads] if loads else list(LOADS.values())
    ours: list[Server] = [Ours.variant(name) for name in variants or (() if serve_args else VARIANTS)]
    ours += [Ours(tuple(shlex.split(arguments))) for arguments in serve_args]
    others = [PEERS[name]() for name in peers or PEERS if name != "none"]
    sweep = [Load("sweep", 1, number) for number in SWEEP]
    _check_enough(len(sequences), [*selected, *(sweep if "sweep" in chosen else [])])
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="birnn-bench-"))
        comparison = Comparison(
            bundle=bundle,
            sequences=sequences,
            server_cores=_cores(server_cores),
            client_cores=_cores(client_cores),
            records=records,
            perf_analyzer=PerfAnalyzer.install() if generator != "asyncio" else None,
            asyncio=generator != "perf_analyzer",
            h2load=_h2load() if front_end else None,
            window=window,
            scratch=Path(scratch),
        )
        facts = _facts(comparison, file, float(tokenized.batch.lengths.mean()), [*ours, *others])
        replace_text(out / FACTS_FILE, json.dumps(facts, indent=1) + "\n")
        if "search" in chosen:
            comparison.search(others, selected, every=3 if quick else 1)
        if "rounds" in chosen:
            comparison.rounds(count, [*ours, *others], selected)
        if "sweep" in chosen:
            comparison.sweep([*ours, *others], sweep)
    if "report" in chosen:
        write_report(out, records.all(), facts)
        click.echo(f"the report is {out / 'report.md'}", err=True)


def _h2load() -> H2Load | None:
    found = H2Load.find()
    if found is None:
        click.echo("h2load is not installed (Debian's nghttp2-client): front ends are not measured alone", err=True)
    return found


def _cores(text: str | None) -> list[int]:
    allowed = sorted(os.sched_getaffinity(0))
    if text is None:
        return allowed
    try:
        cores = sorted({int(number) for number in text.split(",")})
    except ValueError:
        raise click.UsageError(f"cores are numbers with commas between them, not {text!r}") from None
    if not set(cores) <= set(allowed):
        raise click.UsageError(f"cores {text} are not all among those of this process, {allowed}")
    return cores


def _check_enough(count: int, loads: Sequence[Load]) -> None:
    """Callers must not share sequences: ours computes equal ones in flight once, and elsewhere they need no padding."""
    for load in loads:
        if count < load.batch * load.in_flight:
            raise click.UsageError(
                f"{load} takes at least {load.batch * load.in_flight} distinct sequences, and the file gives {count}; "
                "give a larger one with --sequences, or leave out that load (--load, or no sweep)"
            )


def _facts(comparison: Comparison, file: Path, mean_length: float, servers: Sequence[Server]) -> dict[str, Any]:
    """What the report says besides the figures; commands and versions add up over the pieces of a comparison."""
    manifest = comparison.bundle.manifest
    known = _read_facts(comparison.records.folder) if (comparison.records.folder / FACTS_FILE).exists() else {}
    command = shlex.join(["python", "-m", "bench.peers", *sys.argv[1:]])
    versions = {server.name: server.versions() for server in servers}
    if comparison.perf_analyzer is not None:
        versions["perf_analyzer"] = [comparison.perf_analyzer.version]
    return {
        "machine": known.get("machine") or describe_machine(),
        "model": f"{manifest.architecture}, E = {manifest.embedding_size}, H = {manifest.hidden_size}, "
        f"{manifest.layers} layer(s), {manifest.pooling} pooling, {manifest.dimension} floats, random weights",
        "file": file.name,
        "sequences": len(comparison.sequences),
        "mean_length": mean_length,
        "server_cores": list(comparison.server_cores),
        "client_cores": list(comparison.client_cores),
        "window": comparison.window,
        "commands": [*known.get("commands", []), command],
        "versions": {**known.get("versions", {}), **versions},
    }


def _read_facts(out: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((out / FACTS_FILE).read_text())
    except FileNotFoundError:
        raise click.ClickException(f"{out} holds nothing measured yet; run the rounds first") from None
    return facts
