"""`python -m bench planner`: the real scheduler beside other servers' policies and an offline planner, simulated."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np

from bench.encoders import MAX_LENGTH
from bench.results import OUT, QUICK, write_result
from bench.sequences import OPTION, read_sequences
from bench.simulation.bound import least_mean_latency
from bench.simulation.clairvoyant import Clairvoyant
from bench.simulation.device import CPU, GPU, PACKED, Device, Outcome, Policy, simulate
from bench.simulation.load import (
    Arrivals,
    Fixed,
    HeavyTailed,
    Lengths,
    Mixed,
    Recorded,
    Sizes,
    bursts,
    make_load,
    poisson,
)
from bench.simulation.policies import Fifo, Ours, Triton
from birnn_bundle.smiles import SmilesTokenizer

DEVICES = {"cpu": CPU, "packed": PACKED, "gpu": GPU}
# Name, how many sequences a request has, how requests arrive.
LOADS: dict[str, tuple[Sizes, Arrivals]] = {
    "1 a call": (Fixed(1), poisson),
    "8 a call": (Fixed(8), poisson),
    "32 a call": (Fixed(32), poisson),
    "mixed": (Mixed((1, 8, 128), (0.8, 0.15, 0.05)), poisson),
    "heavy-tailed": (HeavyTailed(), poisson),
    "8 a call, bursts": (Fixed(8), bursts),
}


@dataclass(frozen=True)
class Result:
    """How one policy did under one load; latencies in seconds.

    `bound` is a lower bound on the mean latency, `offline` the least of any schedule found, where the offline planner
    was played.
    """

    device: str
    load: str
    share: float
    policy: str
    requests: int
    mean: float
    p50: float
    p99: float
    longest: float
    padding: float
    utilization: float
    bound: float
    offline: float | None = None


def others(device: Device) -> dict[str, dict[str, Callable[[], Policy]]]:
    """Policies of other servers with their settings: by policy, then by setting, since the best one is to count."""
    rows = [rows for rows in (4, 8, 16, 32, 64, 256, 512) if rows <= device.max_rows]
    return {
        "first come, first served": {f"{count} rows": partial(Fifo, count) for count in rows},
        "token budget, as TEI": {f"{48 * count} tokens": partial(Fifo, 8 * count, 48.0 * count) for count in rows},
        "preferred size and delay, as Triton": {
            f"{count} rows, {1000 * delay:g} ms": partial(Triton, count, count if delay else 1, delay)
            for count in rows
            for delay in (0.0, 1e-3, 5e-3)
        },
    }


def compare(device: str, load: str, share: float, lengths: Lengths, count: int, offline: bool) -> list[Result]:
    """Every policy under one load of about `count` sequences, at `share` of the device's capacity.

    Other servers' policies count with the setting that has the lowest mean latency under this very load.
    """
    simulated = DEVICES[device]
    sizes, arrivals = LOADS[load]
    rate = share * simulated.capacity(lengths) / sizes.mean
    requests = make_load(rate, max(50, int(count / sizes.mean)), sizes, lengths, seed=1, arrivals=arrivals)
    outcomes = {"ours": simulate(Ours(simulated), requests, simulated)}
    if offline:
        # Long enough that what is decided now no longer shows: some times what a request takes.
        horizon = 4 * float(outcomes["ours"].latencies.mean())
        clairvoyant = Clairvoyant(simulated, requests, horizon=horizon)
        outcomes["offline planner"] = simulate(clairvoyant, requests, simulated)
    for name, settings in others(simulated).items():
        tried = {setting: simulate(policy(), requests, simulated) for setting, policy in settings.items()}
        best = min(tried, key=lambda setting: float(tried[setting].latencies.mean()))
        outcomes[f"{name} ({best})"] = tried[best]
    bound = least_mean_latency(requests, simulated)
    least = min(float(outcome.latencies.mean()) for outcome in outcomes.values()) if offline else None
    return [
        _result(outcome, device=device, load=load, share=share, policy=name, bound=bound, offline=least)
        for name, outcome in outcomes.items()
    ]


def _result(
    outcome: Outcome, *, device: str, load: str, share: float, policy: str, bound: float, offline: float | None
) -> Result:
    latencies = outcome.latencies
    p50, p99 = np.quantile(latencies, [0.5, 0.99]).tolist()
    return Result(
        device=device,
        load=load,
        share=share,
        policy=policy,
        requests=len(latencies),
        mean=float(latencies.mean()),
        p50=p50,
        p99=p99,
        longest=float(latencies.max()),
        padding=outcome.padding,
        utilization=outcome.utilization,
        bound=bound,
        offline=offline,
    )


def to_markdown(results: Sequence[Result]) -> str:
    """The results as a table."""
    lines = [
        "| device | load | policy | mean ms | p99 ms | padding | busy | mean / bound | mean / offline |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        offline = "" if one.offline is None else f"{one.mean / one.offline:.2f}"
        load, times = f"{one.load}, {one.share:.0%}", f"{1000 * one.mean:.2f} | {1000 * one.p99:.1f}"
        use = f"{one.padding:.1%} | {one.utilization:.0%}"
        lines.append(
            f"| {one.device} | {load} | {one.policy} | {times} | {use} | {one.mean / one.bound:.1f} | {offline} |"
        )
    return "\n".join(lines) + "\n"


@click.command()
@OPTION
@OUT
@QUICK
@click.option("--device", "devices", type=click.Choice(list(DEVICES)), multiple=True, help="All by default.")
@click.option("--load", "loads", type=click.Choice(list(LOADS)), multiple=True, help="All by default.")
@click.option(
    "--share", "shares", type=float, multiple=True, default=[0.5, 0.8], show_default=True,
    help="Load, as a share of the capacity in full batches of equal lengths.",
)  # fmt: skip
@click.option("--count", default=3000, show_default=True, help="Sequences to simulate on each device and load.")
@click.option("--offline", is_flag=True, help="Also play the offline planner, not on the GPU: minutes.")
def planner(
    file: Path,
    out: Path,
    quick: bool,
    devices: tuple[str, ...],
    loads: tuple[str, ...],
    shares: tuple[float, ...],
    count: int,
    offline: bool,
) -> None:
    """Simulate how requests are batched, by ours and by other servers' policies."""
    _, tokenized = read_sequences(file, SmilesTokenizer([]), MAX_LENGTH)
    lengths = Recorded(tokenized.batch.lengths)
    results: list[Result] = []
    for device in devices or DEVICES:
        for load in loads or LOADS:
            for share in shares:
                # On a GPU a batch takes hundreds of sequences.
                scale = (10 if device == "gpu" else 1) * (0.1 if quick else 1)
                results += compare(device, load, share, lengths, round(scale * count), offline and device != "gpu")
                click.echo(f"{device}, {load}, {share:.0%}", err=True)
    write_result(out, "planner", {"results": [asdict(one) for one in results]}, lambda _: to_markdown(results))
