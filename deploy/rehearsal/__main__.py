"""The rehearsal: scale up, roll, cut a host off and bring it back, scale down. Prints how the calls ended."""

import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from deploy.rehearsal.network import NAME, Network
from deploy.rehearsal.pods import Pods, base_settings, callers

HOSTS = 6
CALLERS = ["calls", "calls", "stream", "plain"]
TARGET = f"dns:///{NAME}:8001"
STEADY_SECONDS = 20.0
CUT_SECONDS = 60.0
# The promise of deploy/README.md: clients use a new pod within this time. Shares may be this far from the mean.
PROMISE_SECONDS = 60.0
UNEVEN = 0.25
WINDOW_SECONDS = 5.0


@dataclass
class Phase:
    """A phase of the rehearsal.

    Attributes:
        name: Its name.
        began: Its start, on time.monotonic().
        ended: Its end, on the same clock.
        found: What was observed.
    """

    name: str
    began: float
    ended: float = 0.0
    found: list[str] = field(default_factory=list)


class Rehearsal:
    """Runs the phases in order and records what was observed."""

    def __init__(self, pods: Pods, network: Network) -> None:
        self._pods = pods
        self._network = network
        self.phases: list[Phase] = []

    async def run(self) -> None:
        """Run all phases."""
        await self._phase("steady, two servers", asyncio.sleep(STEADY_SECONDS))
        await self._phase("from two servers to four", self._scale_up())
        await self._phase("rolling restart of four", self._roll())
        await self._phase("a host is cut off, and comes back", self._cut())
        await self._phase("from four servers to two", self._scale_down())
        await self._phase("steady again, two servers", asyncio.sleep(STEADY_SECONDS))

    def say(self, text: str) -> None:
        """Print an observation, and record it with the current phase."""
        phase = self.phases[-1]
        phase.found.append(f"{time.monotonic() - phase.began:5.1f} s  {text}")
        click.echo(f"   {phase.found[-1]}")

    async def _phase(self, name: str, doing: Awaitable[None]) -> None:
        phase = Phase(name, time.monotonic())
        self.phases.append(phase)
        click.echo(name)
        await doing
        phase.ended = time.monotonic()

    async def _scale_up(self) -> None:
        added = await asyncio.gather(self._pods.start(), self._pods.start())
        self.say(f"hosts {added} have been ready for minReadySeconds")
        await self._even(4)

    async def _roll(self) -> None:
        for host in list(self._pods.ready):
            new = await self._pods.start()
            status = await self._pods.stop(host)
            self.say(f"host {new} in place of {host}, which ended with status {status}")
        await self._even(4)

    async def _cut(self) -> None:
        host = self._pods.ready[0]
        self._network.cut(host)
        self.say(f"host {host} is cut off")
        await asyncio.sleep(CUT_SECONDS)
        self.say(f"the name server names {self._pods.ready}")
        self._network.mend(host)
        await self._pods.until_ready(host)
        self.say(f"host {host} is back, and named again")
        await self._even(4)

    async def _scale_down(self) -> None:
        ending = self._pods.ready[:2]
        statuses = await asyncio.gather(*(self._pods.stop(host) for host in ending))
        self.say(f"hosts {ending} ended with status {statuses}")
        await self._even(2)

    async def _even(self, servers: int) -> None:
        """Wait until load is even over this many servers; report how long after the change of DNS, and each share."""
        began = self._pods.changed
        while True:
            shares = await self._shares()
            mean = statistics.fmean(shares.values())
            worst = max(abs(share - mean) for share in shares.values()) / max(mean, 1e-9)
            took = time.monotonic() - began - WINDOW_SECONDS
            if len(shares) == servers and worst < UNEVEN:
                said = ", ".join(f"host {host} {share:.0f}" for host, share in shares.items())
                self.say(f"even {max(took, 0):.0f} s after DNS changed: calls/s {said}")
                return
            if took > 2 * PROMISE_SECONDS:
                self.say(f"NOT EVEN {took:.0f} s after DNS changed: {shares}")
                return

    async def _shares(self) -> dict[int, float]:
        """Calls per second that each server answers, over the next few seconds."""
        before, began = await asyncio.to_thread(self._pods.answered), time.monotonic()
        await asyncio.sleep(WINDOW_SECONDS)
        after, took = await asyncio.to_thread(self._pods.answered), time.monotonic() - began
        return {host: (after[host] - before[host]) / took for host in after if host in before}


def report(phases: list[Phase], notes: list[Path]) -> bool:
    """Print how the calls ended. Returns whether our own clients lost none."""
    lost = 0
    click.echo("\n| | caller | calls | lost | median | p99 | slowest |\n|---|---|---|---|---|---|---|")
    failures: dict[str, int] = {}
    for phase in phases:
        for note in notes:
            ended = [json.loads(line) for line in note.read_text(encoding="utf-8").splitlines()]
            calls = [(took, outcome) for at, took, outcome in ended if phase.began <= at < phase.ended]
            bad = [outcome for _, outcome in calls if outcome != "OK"]
            times = sorted(took for took, _ in calls)
            kind = note.stem.partition("-")[2]
            lost += 0 if kind == "plain" else len(bad) + (not calls)
            for outcome in bad:
                failures[f"{kind}: {outcome}"] = failures.get(f"{kind}: {outcome}", 0) + 1
            shown = [f"{1000 * times[int(len(times) * share)]:.0f} ms" for share in (0.5, 0.99)] if times else ["", ""]
            slowest = f"{times[-1]:.2f} s" if times else ""
            click.echo(f"| {phase.name} | {kind} | {len(calls)} | {len(bad)} | {' | '.join(shown)} | {slowest} |")
    for failure, times_seen in failures.items():
        click.echo(f"{times_seen} x {failure}")
    return lost == 0


async def main() -> int:
    """Run the rehearsal; returns the exit status."""
    age = base_settings()["BIRNN_MAX_CONNECTION_SECONDS"]
    click.echo(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, connections of {age} s"
    )
    with TemporaryDirectory(prefix="rehearsal-") as name:
        folder = Path(name)
        network = Network(folder, HOSTS)
        pods = Pods(network, folder, HOSTS)
        watching = asyncio.create_task(pods.watch())
        await asyncio.gather(pods.start(), pods.start())
        rehearsal = Rehearsal(pods, network)
        with callers(folder, CALLERS, TARGET) as notes:
            await rehearsal.run()
            watching.cancel()
        kept = report(rehearsal.phases, notes)
    click.echo("no call of birnn's clients was lost" if kept else "CALLS WERE LOST")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
