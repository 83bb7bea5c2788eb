"""The options of `birnn loadtest`, and the check that they go together."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from birnn.cli.distinct_files import check_distinct
from birnn.cli.finite_float_range import FiniteFloatRange
from birnn_bundle.sequences import KINDS
from birnn_loadtest.arrivals import GAPS, Gaps, Rate
from birnn_loadtest.durations import read_duration, read_share
from birnn_loadtest.mix_options import read_batches
from birnn_loadtest.objectives import METRICS, Objective, Threshold
from birnn_loadtest.targets import PROTOCOLS

T = TypeVar("T")
BURSTINESS = 4.0
MOST_CHECKED = 1000
# Maximum calls per second and process. A process sends far fewer, but up to this rate it still measures its lag.
MOST_RATE = 100_000.0
ABOVE_ZERO = FiniteFloatRange(min=0, min_open=True)
FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Options:
    """The options on the command line, by name. None for an option that was not given and has no default."""

    protocol: str
    file: tuple[str, ...]
    encoder: tuple[str, ...]
    batch: list[tuple[int, float]]
    input: str | None
    output: str | None
    rate: Rate | None
    arrivals: Gaps | None
    burstiness: float | None
    trace: Path | None
    speed: float | None
    in_flight: int | None
    duration: float | None
    warmup: float
    timeout: float
    slo: tuple[Objective, ...]
    confidence: float
    resolution: float
    max_rate: float | None
    fail_if: tuple[Threshold, ...]
    goodput: float | None
    check: int
    tolerance: float
    metrics: str | None
    metrics_token: str | None
    processes: int
    connections: int | None
    max_in_flight: int
    seed: int
    out: Path | None
    log: Path | None
    html: Path | None

    def check_usage(self) -> None:
        """Check that the options go together. No option is ignored.

        Raises:
            click.UsageError: Some options do not go together, or an output cannot be written.
        """
        drawn = self.trace is None and self.in_flight is None
        callers = self.max_in_flight if self.in_flight is None else self.in_flight
        wrong = {
            "give one of --rate (open loop: latency), --trace (recorded calls), --in-flight (closed loop: throughput), "
            "or --slo (search the highest rate)": (drawn and self.rate is None and not self.slo)
            or sum(given is not None for given in (self.rate, self.trace, self.in_flight)) > 1,
            "--arrivals goes with --rate or --slo": self.arrivals is not None and not drawn,
            "--burstiness goes with --arrivals gamma": self.burstiness is not None and self.arrivals != "gamma",
            "--speed goes with --trace": self.speed is not None and self.trace is None,
            "--slo searches a rate: it does not go with --trace or --in-flight": bool(self.slo) and not drawn,
            "--slo begins with one rate, and not with a ramp": bool(self.slo) and self.rate and not self.rate.steady,
            "--max-rate goes with --slo": self.max_rate is not None and not self.slo,
            "--fail-if goodput needs --goodput DURATION": self.goodput is None
            and any(threshold.metric == "goodput" for threshold in self.fail_if),
            "--fail-if wrong needs --check above 0": not self.check
            and any(threshold.metric == "wrong" for threshold in self.fail_if),
            "--confidence must be from 50% to below 100%": not 0.5 <= self.confidence < 1,
            "--resolution must be from 0.1% to 100%": not 0.001 <= self.resolution <= 1,
            "--processes must not exceed --in-flight or --max-in-flight: each takes its share": self.processes
            > callers,
            f"a process sends at most {MOST_RATE:,.0f} calls/s; lower --rate and --max-rate, or raise --processes": max(
                self.max_rate or 0.0, *((self.rate.start, self.rate.end) if self.rate else (0.0,))
            )
            > MOST_RATE * self.processes,
            "--metrics must be a URL such as http://127.0.0.1:8002/metrics": self.metrics is not None
            and not self.metrics.startswith(("http://", "https://")),
            "--metrics-token goes with --metrics": self.metrics_token is not None and self.metrics is None,
        }
        for message, so in wrong.items():
            if so:
                raise click.UsageError(message)
        inputs = {f"--file {text}": path for text, path in zip(self.file, file_paths(self), strict=True)}
        check_distinct({**inputs, "--trace": self.trace}, {"--out": self.out, "--log": self.log, "--html": self.html})
        for path in (self.out, self.log, self.html):
            if path is not None and not path.parent.is_dir():
                raise click.UsageError(f"the folder {path.parent} does not exist")


def file_paths(options: Options) -> list[Path]:
    """Return the path in each --file, without the encoder that may precede it."""
    names = {text.partition("=")[0].partition("@")[0] for text in options.encoder}
    parts = [text.partition("=") for text in options.file]
    return [Path(path if equals and name in names else f"{name}{equals}{path}") for name, equals, path in parts]


def _read(reader: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a click callback that parses an option, or each of its values. A ValueError becomes a usage error."""

    def callback(context: click.Context, parameter: click.Parameter, given: Any) -> Any:
        try:
            return tuple(map(reader, given)) if isinstance(given, tuple) else None if given is None else reader(given)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


_CARRIED = (
    click.option(
        "--protocol",
        type=click.Choice(list(PROTOCOLS)),
        default="encode",
        show_default=True,
        help="; ".join(f"{name}: {what}" for name, (_, what) in PROTOCOLS.items()) + ".",
    ),
    click.option(
        "--file",
        multiple=True,
        required=True,
        metavar="[ENCODER=]FILE",
        help=f"File of sequences to send: {', '.join(KINDS)}, each also as .gz, .xz or .zst. Blank lines are skipped. "
        "Each encoder can have its own file.",
    ),
    click.option(
        "--encoder",
        multiple=True,
        default=("smiles",),
        show_default=True,
        metavar="NAME[@VERSION][=WEIGHT]",
        help="Encoder (or model) to call. Repeat the option for a mix, drawn by weight.",
    ),
    click.option(
        "--batch",
        default="1",
        show_default=True,
        metavar="SIZE[=WEIGHT],...",
        callback=_read(read_batches),
        help="Sequences per call. Several sizes are drawn by weight, for example 1=90,32=10.",
    ),
    click.option(
        "--input", metavar="NAME", help="Open Inference: input tensor of strings; by default the model's first."
    ),
    click.option(
        "--output", metavar="NAME", help="Open Inference: output tensor of floats; by default the model's first."
    ),
)
_LOAD = (
    click.option(
        "--rate",
        callback=_read(Rate.read),
        metavar="N or N..M",
        help="Open loop: average calls per second, independent of the server. N..M rises or falls steadily. With "
        "--slo, the first rate to try.",
    ),
    click.option(
        "--arrivals",
        type=click.Choice(GAPS),
        help="How the time between calls varies: as with independent callers (poisson, the default), not at all "
        "(constant), or in bursts (gamma).",
    ),
    click.option(
        "--burstiness",
        type=FiniteFloatRange(min=0, min_open=True, max=1000),
        help="For gamma: squared coefficient of variation of the time between calls. 1 is poisson. "
        f"{BURSTINESS:g} by default.",
    ),
    click.option(
        "--trace",
        type=FILE,
        help="Instead of --rate: replay the calls in a .csv file with the column seconds and, optionally, the columns "
        "encoder and batch.",
    ),
    click.option("--speed", type=ABOVE_ZERO, help="Replay the trace this many times as fast; 1 by default."),
    click.option(
        "--in-flight",
        type=click.IntRange(1, 100_000),
        help="Instead of --rate: a closed loop of this many callers, each waiting for its reply. It measures "
        "throughput. Its latency is not what independent callers would see.",
    ),
    click.option(
        "--duration",
        type=ABOVE_ZERO,
        help="Seconds to measure; with --slo, seconds per step. 10 by default, or the length of the trace.",
    ),
    click.option(
        "--warmup",
        type=FiniteFloatRange(min=0),
        default=1.0,
        show_default=True,
        help="Seconds of the same load before the measurement. They do not count.",
    ),
    click.option("--timeout", type=ABOVE_ZERO, default=10.0, show_default=True, help="Deadline of a call, in seconds."),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same calls."
    ),
)
_JUDGED = (
    click.option(
        "--slo",
        multiple=True,
        callback=_read(Objective.read),
        metavar="OBJECTIVE",
        help="Search for the highest rate that meets this objective: p99=20ms (any percentile; failed calls count as "
        "too slow) or errors=0.1%. Repeatable; all objectives must hold.",
    ),
    click.option(
        "--confidence",
        default="95%",
        show_default=True,
        callback=_read(read_share),
        help="Confidence with which the objectives must hold.",
    ),
    click.option(
        "--resolution",
        default="5%",
        show_default=True,
        callback=_read(read_share),
        help="The search ends when the rates differ by less than this.",
    ),
    click.option("--max-rate", type=ABOVE_ZERO, help="Highest rate that the search may try; no limit by default."),
    click.option(
        "--fail-if",
        multiple=True,
        callback=_read(Threshold.read),
        metavar="THRESHOLD",
        help="Exit with status 1 if this is true, for example p99>50ms, errors>1% or calls<100. Repeatable. Metrics: "
        f"{METRICS}. Without a threshold for errors, any failed call fails the run.",
    ),
    click.option(
        "--goodput",
        callback=_read(read_duration),
        metavar="DURATION",
        help="Also report how many calls were answered within this duration.",
    ),
    click.option(
        "--check",
        type=click.IntRange(0, MOST_CHECKED),
        default=20,
        show_default=True,
        help="Number of replies to compare, after the load, with the answers to the same sequences sent alone.",
    ),
    click.option(
        "--tolerance",
        type=FiniteFloatRange(min=0),
        default=1e-4,
        show_default=True,
        help="Largest difference allowed in --check, as a share of the largest number of a vector. 0 requires the same "
        "bits.",
    ),
    click.option(
        "--metrics",
        metavar="URL",
        help="URL of the server's metrics, for example http://127.0.0.1:8002/metrics. Shows where calls spent their "
        "time.",
    ),
    click.option(
        "--metrics-token",
        envvar="BIRNN_METRICS_TOKEN",
        show_envvar=True,
        help="Bearer token for the metrics; by default the value of --token.",
    ),
)
_SENT = (
    click.option(
        "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that send calls."
    ),
    click.option(
        "--connections",
        type=click.IntRange(1, 10_000),
        help="Connections per process. By default 4 for gRPC, and one per call in flight for HTTP.",
    ),
    click.option(
        "--max-in-flight",
        type=click.IntRange(1, 1_000_000),
        default=10_000,
        show_default=True,
        help="Open loop: maximum number of calls in flight. Calls beyond it are not sent and count as NOT_SENT_FULL.",
    ),
    click.option("--out", type=FILE, help="Write the result to this file as JSON."),
    click.option("--log", type=FILE, help="Write the latency of each second to this file, as an HdrHistogram log."),
    click.option("--html", type=FILE, help="Write the result to this file as a self-contained HTML page."),
)


def load_test_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all options except those for the server and for reading files. The command receives them as `options`."""
    names = {field.name for field in fields(Options)}

    @functools.wraps(command)
    def gathered(*arguments: Any, **given: Any) -> Any:
        options = Options(**{name: given.pop(name) for name in names})
        return command(*arguments, options=options, **given)

    for option in reversed((*_CARRIED, *_LOAD, *_JUDGED, *_SENT)):
        gathered = option(gathered)
    return gathered
