"""`birnn loadtest`."""

import json
import sys
from pathlib import Path

import click

from birnn import EncodeError
from birnn.cli.file_options import Reading, file_options
from birnn.cli.server_options import Server, server_options
from birnn_bundle.atomic_file import replace_text
from birnn_bundle.quoting import printable
from birnn_loadtest.arrivals import Process, Rate, Trace
from birnn_loadtest.fleet import EndedError, Fleet
from birnn_loadtest.histogram_log import write_log
from birnn_loadtest.load_test import Load, LoadTest, SloSearch
from birnn_loadtest.machine import Machine
from birnn_loadtest.mix_options import read_mix
from birnn_loadtest.objectives import Threshold
from birnn_loadtest.options import BURSTINESS, MOST_RATE, Options, load_test_options
from birnn_loadtest.report.saved_run import SavedRun
from birnn_loadtest.report_commands import LoadTestGroup, compare_command, page_of, report_command
from birnn_loadtest.result import EXIT_ERROR, EXIT_INTERRUPTED, Result
from birnn_loadtest.schedule import Mix
from birnn_loadtest.server_metrics import MetricsError, MetricsSource
from birnn_loadtest.settings import Settings
from birnn_loadtest.table import table
from birnn_loadtest.targets.target import TensorNames
from birnn_loadtest.worker import Plan

SECONDS = 10.0
SLOWEST_START = 10.0


class LoadTestError(click.ClickException):
    """The load test could not run, or its result could not be written."""

    exit_code = EXIT_ERROR


@click.group(
    cls=LoadTestGroup,
    commands=[report_command, compare_command],
    invoke_without_command=True,
    no_args_is_help=False,
    subcommand_metavar="[COMMAND [ARGS]...]",
)
@server_options
@load_test_options
@file_options
def loadtest(server: Server, reading: Reading, options: Options) -> None:
    """Measure a server's latency under a load, or find the highest load that it can take.

    \b
    birnn loadtest --file molecules.smi --rate 50 --batch 8 --duration 30
    birnn loadtest --file molecules.smi --slo p99=20ms --slo errors=0.1%
    birnn loadtest --file molecules.smi --rate 200 --fail-if 'p99>50ms' --html run.html
    birnn loadtest --protocol infer --address triton:8001 --encoder mymodel --file molecules.smi --rate 50

    Each call is due at a fixed time, as with independent callers, and its latency counts from that time. So a server
    that stalls cannot hide the calls that it delayed. Calls are not repeated, so every failure counts. The lag shows
    how late the generator itself was.

    Exit status: 0 if the test passed; 1 if a threshold was crossed, a reply was wrong, or no rate holds the objectives;
    2 for wrong usage; 3 if the server could not be called, or a file could not be read or written; 4 if the generator
    limited a search, so that the server may take more; 130 if interrupted (Ctrl-C ends a test early, and the result is
    still written).
    """
    options.check_usage()
    try:
        trace = None if options.trace is None else Trace.read(options.trace, options.speed or 1.0)
        mix, files = read_mix(options.encoder, options.file, reading, options.batch, trace)
    except ValueError as error:
        raise LoadTestError(str(error)) from error
    result = _run(server, options, trace, mix, files)
    click.echo(printable(table(result)))
    _write(result, options)
    for failure in result.outcome.failures:
        click.echo(printable(f"failed: {failure}"), err=True)
    if result.exit_code:
        sys.exit(result.exit_code)


def _run(server: Server, options: Options, trace: Trace | None, mix: Mix, files: list[str]) -> Result:
    highest = options.max_rate or MOST_RATE * options.processes
    slo = SloSearch(options.slo, options.confidence, options.resolution, highest) if options.slo else None
    seconds = options.duration or (SECONDS if trace is None else max(trace.seconds - options.warmup, 1e-3))
    arrivals = _arrivals(options, trace, slo, seconds)
    plan = Plan(
        server,
        options.protocol,
        TensorNames(options.input, options.output),
        mix,
        options.connections,
        options.timeout,
        options.max_in_flight,
        options.in_flight,
        options.check,
        options.tolerance,
        options.processes,
    )
    load = Load(arrivals, options.warmup, seconds, options.seed, options.check > 0)
    thresholds = options.fail_if
    if slo is None and not any(threshold.metric == "errors" for threshold in thresholds):
        thresholds = (*thresholds, Threshold("errors", ">", 0.0))
    settings = Settings.of(options, server, files, arrivals, seconds)
    source = _metrics(server, options, mix)
    try:
        with Fleet(plan) as fleet:
            test = LoadTest(fleet, load, source, lambda line: click.echo(printable(line), err=True))
            outcome = (
                test.run(thresholds, options.goodput) if slo is None else test.search(slo, thresholds, options.goodput)
            )
            return Result(settings, slo, Machine.this(), fleet.opened, outcome)
    except EncodeError as error:
        raise LoadTestError(str(error)) from error
    except EndedError:
        click.echo("ended before the first call", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _arrivals(options: Options, trace: Trace | None, slo: SloSearch | None, seconds: float) -> Process | Trace | None:
    if trace is not None or options.in_flight is not None:
        return trace
    rate = options.rate
    if rate is None:
        assert slo is not None
        # At this rate a step need not be longer than asked for.
        first = max(SLOWEST_START, slo.needed / seconds)
        rate = Rate(first, first)
    gaps = options.arrivals or "poisson"
    return Process(rate, gaps, (options.burstiness or BURSTINESS) if gaps == "gamma" else 1.0)


def _metrics(server: Server, options: Options, mix: Mix) -> MetricsSource | None:
    if options.metrics is None:
        return None
    encoders = [part.encoder for part in mix.parts]
    source = MetricsSource(options.metrics, encoders, options.metrics_token or server.token, server.tls)
    try:
        # What is wrong with the URL or the token is better told now than after the test.
        source.read()
    except MetricsError as error:
        raise LoadTestError(str(error)) from error
    return source


def _write(result: Result, options: Options) -> None:
    written: list[tuple[Path, str]] = []
    data = json.dumps(result.to_json(), indent=2)
    if options.out is not None:
        written.append((options.out, data + "\n"))
    if options.html is not None:
        # From the same data as a saved run, so that both have the same page.
        written.append((options.html, page_of(SavedRun("this run", json.loads(data)))))
    if options.log is not None:
        written.append((options.log, write_log(result.outcome.recording, result.outcome.started)))
    for path, content in written:
        try:
            replace_text(path, content)
        except OSError as error:
            raise LoadTestError(f"cannot write {path}: {error.strerror}") from error
