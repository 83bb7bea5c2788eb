"""Servers, treated as Kubernetes treats pods of deploy/kubernetes/base."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.rehearsal.network import Network, address

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy" / "kubernetes" / "base"
# How often this looks; Kubernetes looks as often as the probe says.
LOOK_SECONDS = 1.0
# A node that has said nothing for so long is not ready, and its pods leave the Service.
NODE_GRACE_SECONDS = 40.0


def base_settings() -> dict[str, str]:
    """The variables that the base's ConfigMap gives to servers."""
    (settings,) = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in settings["literals"])


def base_deployment() -> dict[str, Any]:
    """The `spec` of the base's Deployment."""
    spec: dict[str, Any] = yaml.safe_load((BASE / "deployment.yaml").read_text(encoding="utf-8"))["spec"]
    return spec


class Pods:
    """The servers of one Service: which run, which are ready, and which of them the name server names.

    Args:
        network: Its hosts run at most one server each.
        folder: For logs, and what servers measure of this machine.
        hosts: How many there are.

    Attributes:
        ready: Hosts whose servers the name server names.
        changed: When these changed, by time.monotonic().
    """

    def __init__(self, network: Network, folder: Path, hosts: int) -> None:
        self._network = network
        self._folder = folder
        self._free = list(range(1, hosts + 1))
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._ending: set[int] = set()
        self._seen: dict[int, float] = {}
        self.ready: list[int] = []
        self.changed = time.monotonic()
        self._named = asyncio.Condition()
        spec = base_deployment()
        pod = spec["template"]["spec"]
        self._ready_seconds = float(spec["minReadySeconds"])
        self._pause_seconds = float(pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"])
        self._grace_seconds = float(pod["terminationGracePeriodSeconds"])

    async def start(self) -> int:
        """Start a server on a free host, and wait until it is ready and has been for `minReadySeconds`."""
        host = self._free.pop(0)
        command = ["ip", "netns", "exec", f"host{host}", sys.executable, "-m", "birnn.cli.main", "serve"]
        settings = {
            **base_settings(),
            "BIRNN_HOST": "0.0.0.0",
            "BIRNN_DEVICE": "cpu",
            # One small encoder: servers share this machine's cores with their callers.
            "BIRNN_MODELS": str(ROOT / "models" / "smiles-small" / "1"),
            "BIRNN_CACHE_DIR": str(self._folder),
            "BIRNN_SLOTS": "1",
        }
        with (self._folder / f"host{host}.log").open("ab") as log:
            self._processes[host] = await asyncio.create_subprocess_exec(
                *command, stderr=log, env={**os.environ, **settings}
            )
        await self.until_ready(host)
        await asyncio.sleep(self._ready_seconds)
        return host

    async def until_ready(self, host: int) -> None:
        """Wait until the name server names a host."""
        async with self._named:
            await self._named.wait_for(lambda: host in self.ready)

    async def stop(self, host: int) -> int:
        """End a server as Kubernetes does: out of DNS, `preStop`, SIGTERM, and SIGKILL after the grace period.

        Returns:
            Its status.
        """
        process = self._processes[host]
        self._ending.add(host)
        await self._name(set(self.ready) - {host})
        await asyncio.sleep(self._pause_seconds)
        process.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.wait_for(process.wait(), self._grace_seconds - self._pause_seconds)
        except TimeoutError:
            process.kill()
            status = await process.wait()
        del self._processes[host]
        self._ending.discard(host)
        self._free.append(host)
        return status

    async def watch(self) -> None:
        """Ask every server whether it is ready, for ever, and keep the name server up to date."""
        while True:
            running = list(self._processes)
            answers = await asyncio.gather(*(asyncio.to_thread(self._is_ready, host) for host in running))
            now = time.monotonic()
            for host, answer in zip(running, answers, strict=True):
                if answer:
                    self._seen[host] = now
                    if host not in self.ready and host not in self._ending:
                        await self._name({*self.ready, host})
                elif host in self.ready and now - self._seen[host] > NODE_GRACE_SECONDS:
                    await self._name(set(self.ready) - {host})
            await asyncio.sleep(LOOK_SECONDS)

    def answered(self) -> dict[int, float]:
        """How many calls of Encode each server that can be asked has answered."""
        found = {}
        for host in list(self._processes):
            if (text := _get(host, "/metrics")) is not None:
                found[host] = sum(
                    sample.value
                    for family in text_string_to_metric_families(text)
                    for sample in family.samples
                    if sample.name == "birnn_requests_total" and sample.labels["method"].endswith("Encode")
                )
        return found

    async def _name(self, hosts: set[int]) -> None:
        async with self._named:
            self.ready = sorted(hosts)
            self._network.name(self.ready)
            self.changed = time.monotonic()
            self._named.notify_all()

    def _is_ready(self, host: int) -> bool:
        return _get(host, "/readyz") is not None


def _get(host: int, path: str) -> str | None:
    """What the metrics port of a host answers; None where it does not, or not with 200."""
    try:
        with urllib.request.urlopen(f"http://{address(host)}:8002{path}", timeout=2) as reply:
            return str(reply.read().decode())
    except OSError:
        return None


@contextmanager
def callers(folder: Path, kinds: list[str], target: str) -> Iterator[list[Path]]:
    """Processes that call all the time; gives the files in which they note each call."""
    notes = [folder / f"{number}-{kind}.calls" for number, kind in enumerate(kinds)]
    processes = [
        subprocess.Popen([sys.executable, "-m", "deploy.rehearsal.caller", kind, target, str(note)], cwd=ROOT)
        for kind, note in zip(kinds, notes, strict=True)
    ]
    try:
        yield notes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
