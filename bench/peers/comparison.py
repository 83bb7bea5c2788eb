"""Servers one after the other under the same loads."""

import math
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import grpc
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from bench.callers import infer_request, run_callers
from bench.loads import LOADS, Load, Sample
from bench.machine import ForeignLoad, on_cores
from bench.peers.bare import bare_runs
from bench.peers.perf_analyzer import PerfAnalyzer
from bench.peers.records import Phase, Record, Records, best_settings
from bench.peers.served.onnx_encoder import OnnxEncoder
from bench.peers.server import Command, Server, Setting, running
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_bundle.bundle import Bundle

BARE = "session.run, no server"
# Of every encoding to the bare graph's; ours may be asked for half precision.
MIN_COSINE = 0.9999
SEARCH_SECONDS, SEARCH_WARMUP = 2.0, 0.5
WARMUP_LOAD = Load("warm-up", 8, 4)
WARMUP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all servers of a comparison have in common.

    Attributes:
        bundle: The graph and tokenizer served.
        sequences: What the callers send, in a shuffled order.
        server_cores, client_cores: Processors of servers and of load generators.
        records: Where results go.
        perf_analyzer: The C++ generator; None where it is not wanted.
        asyncio: Whether to use our own generator.
        window: Seconds of a third of a measurement.
        scratch: Folder for everything that may be thrown away.
    """

    bundle: Bundle
    sequences: Sequence[str]
    server_cores: Sequence[int]
    client_cores: Sequence[int]
    records: Records
    perf_analyzer: PerfAnalyzer | None
    asyncio: bool
    window: float
    scratch: Path

    def search(self, servers: Sequence[Server], loads: Sequence[Load], every: int = 1) -> None:
        """Measure every candidate (or only every third, say) of servers that have several, under every load."""
        for server in servers:
            candidates = server.candidates(len(self.server_cores))[::every]
            for number, settings in enumerate(candidates, 1):
                click.echo(f"search: {server.name} {number}/{len(candidates)} {dict(settings)}", err=True)
                self._measure("search", number, server, dict(settings), loads, self._generators[-1:])

    def rounds(self, count: int, servers: Sequence[Server], loads: Sequence[Load]) -> None:
        """Measure all servers in turn, `count` times, every other time in reverse, each with its best settings."""
        for number in range(self.records.next_round(), self.records.next_round() + count):
            if any(load.in_flight == 1 for load in loads):
                self._measure_bare(number)
            for server in servers if number % 2 else list(reversed(servers)):
                self._with_best("round", number, server, loads, self._generators)

    def sweep(self, servers: Sequence[Server], loads: Sequence[Load]) -> None:
        """Measure all servers once under each of many loads, with their best settings for the nearest load searched."""
        for server in servers:
            self._with_best("sweep", 1, server, loads, self._generators[:1])

    @property
    def _generators(self) -> list[str]:
        return ["perf_analyzer"] * (self.perf_analyzer is not None) + ["asyncio"] * self.asyncio

    def _with_best(
        self, phase: Phase, number: int, server: Server, loads: Sequence[Load], generators: Sequence[str]
    ) -> None:
        """Measure a server under each load with the best settings for it, started once for loads that share theirs."""
        groups: list[tuple[dict[str, Setting], list[Load]]] = []
        for load in loads:
            settings = self._best(server, load)
            if group := next((group for known, group in groups if known == settings), None):
                group.append(load)
            else:
                groups.append((settings, [load]))
        for settings, group in groups:
            click.echo(f"{phase} {number}: {server.name} {settings or ''} {', '.join(map(str, group))}", err=True)
            self._measure(phase, number, server, settings, group, generators)

    def _best(self, server: Server, load: Load) -> dict[str, Setting]:
        candidates = server.candidates(len(self.server_cores))
        if len(candidates) == 1:
            return dict(candidates[0])
        found = best_settings(self.records.all()).get(server.name)
        if not found:
            raise click.ClickException(f"no settings were searched for {server.name}; run the search first")
        return found[nearest(load, [known for name, known in LOADS.items() if name in found]).name]

    def _measure(
        self,
        phase: Phase,
        number: int,
        server: Server,
        settings: dict[str, Setting],
        loads: Sequence[Load],
        generators: Sequence[str],
    ) -> None:
        """Start a server and record it under every load; a server or run that fails is recorded as such."""
        foreign = ForeignLoad()
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            command = server.prepare(self.bundle, settings, len(self.server_cores), Path(folder))
            line = " ".join(command.arguments)

            def record(
                load: Load, generator: str, sample: Sample | None, error: str | None, facts: dict[str, float]
            ) -> None:
                self.records.add(
                    Record(phase, number, server.name, load, generator, settings, sample, error, line, facts)
                )

            try:
                with self._running(command, Path(folder) / "server.log"):
                    for load in loads:
                        for generator in generators:
                            before = own_counters(command)
                            foreign.restart()
                            try:
                                sample = self._generate(phase, generator, load, command.address)
                            except click.ClickException as error:
                                click.echo(f"  {load}, {generator}: {error.message}", err=True)
                                record(load, generator, None, error.message, {})
                                continue
                            click.echo(f"  {load}, {generator}: {describe(sample)}", err=True)
                            others = {"other_cores": foreign.cores()}
                            record(load, generator, sample, None, others | own_shares(before, own_counters(command)))
            except click.ClickException as error:
                click.echo(f"  {server.name}: {error.message}", err=True)
                record(loads[0], generators[0], None, error.message, {})

    @contextmanager
    def _running(self, command: Command, log: Path) -> Iterator[None]:
        """A server that is warm and has been seen to give the right answer."""
        model = self.bundle.manifest.name
        with running(command, model, on_cores(self.server_cores), log):
            self._check(command.address, model)
            self._call(WARMUP_LOAD, command.address, WARMUP_SECONDS, 0.0)
            yield

    def _check(self, address: str, model: str) -> None:
        """Compare a server's encodings with the bare graph's: what is fast must be right."""
        sequences = self.sequences[:16]
        expected = OnnxEncoder(self.bundle.path).encode([sequence.encode() for sequence in sequences])
        with grpc.insecure_channel(address) as channel:
            try:
                reply = GRPCInferenceServiceStub(channel).ModelInfer(infer_request(model, sequences), timeout=30)
            except grpc.RpcError as error:
                raise click.ClickException(f"the server does not encode: {error}") from error
        found = np.frombuffer(reply.raw_output_contents[0], dtype="<f4").reshape(reply.outputs[0].shape)
        if found.shape != expected.shape or not (_cosines(found, expected) >= MIN_COSINE).all():
            raise click.ClickException("the server's encodings are not those of the graph")

    def _generate(self, phase: Phase, generator: str, load: Load, address: str) -> Sample:
        if generator == "asyncio" and phase == "search":
            return self._call(load, address, SEARCH_SECONDS, SEARCH_WARMUP)
        if generator == "asyncio":
            # As long as perf_analyzer's three windows.
            return self._call(load, address, 3 * self.window, self.window / 3)
        assert self.perf_analyzer is not None
        return self.perf_analyzer.run(
            load,
            self.bundle.manifest.name,
            address,
            self.sequences,
            window=self.window,
            prefix=on_cores(self.client_cores),
            scratch=self.scratch / "perf_analyzer",
        )

    def _call(self, load: Load, address: str, seconds: float, warmup: float) -> Sample:
        return run_callers(
            address,
            "infer",
            self.bundle.manifest.name,
            load,
            self.sequences,
            seconds=seconds,
            warmup=warmup,
            prefix=on_cores(self.client_cores),
            scratch=self.scratch,
        )

    def _measure_bare(self, number: int) -> None:
        encoder = OnnxEncoder(self.bundle.path)
        sample = bare_runs(encoder, self.sequences[:1000], 3 * self.window)
        click.echo(f"round {number}: {BARE}: {describe(sample)}", err=True)
        self.records.add(Record("round", number, BARE, Load("lone", 1, 1), "in process", {}, sample))


def nearest(load: Load, known: Sequence[Load]) -> Load:
    """Of known loads the one most like `load`: the size of a call counts first, then how many are in flight."""
    return min(
        known,
        key=lambda other: (abs(math.log(other.batch / load.batch)), abs(math.log(other.in_flight / load.in_flight))),
    )


def describe(sample: Sample) -> str:
    """A sample in a line."""
    p50, p99 = 1000 * sample.p50, 1000 * sample.p99
    return f"{sample.sequences_per_second:,.0f} sequences/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def own_counters(command: Command) -> dict[str, float]:
    """Counters of our own server; none of another one."""
    if command.metrics is None:
        return {}
    with urllib.request.urlopen(command.metrics, timeout=10) as reply:
        text = reply.read().decode()
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith("_total"):
                totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def own_shares(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Share of computed cells that were padding, and of sequences answered by an equal one in flight."""
    if not after:
        return {}

    def risen(name: str) -> float:
        return after.get(f"birnn_{name}_total", 0.0) - before.get(f"birnn_{name}_total", 0.0)

    tokens, padded = risen("tokens"), risen("padded_tokens")
    sequences, shared = risen("sequences"), risen("shared_sequences")
    return {
        "padding": padded / (tokens + padded) if tokens else 0.0,
        "shared": shared / (sequences + shared) if sequences else 0.0,
    }


def _cosines(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((found * expected).sum(axis=1) / norms, dtype=np.float64)
