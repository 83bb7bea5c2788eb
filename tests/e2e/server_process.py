"""The real server, in a process of its own, on ports of its own."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from birnn_bundle.bundle import Bundle

MODELS = Path(__file__).parents[2] / "models"
# The encoder that a call for `smiles` without a version gets. A server of it alone starts in half the time.
SMILES_ALONE = MODELS / "smiles" / "2"
SMILES = Bundle.load(SMILES_ALONE).manifest
# How long a state may take to come about. It bounds a test that fails; none is to depend on the machine's speed.
PATIENCE_SECONDS = 300
SERVING = re.compile(
    r"serving .* on ([\w.]+:\d+) \(gRPC[^)]*\)(?: and (https?://[\w.]+:\d+))?, metrics on (https?://[\w.]+:\d+)/metrics"
)


@dataclass
class ServerProcess:
    """A running server: where it listens, what it has logged so far, and what its metrics port asks for."""

    process: subprocess.Popen[str]
    address: str = ""
    http: str = ""
    rest: str = ""
    token: str = ""
    """With which metrics are asked for."""
    log: list[str] = field(default_factory=list)
    serving: threading.Event = field(default_factory=threading.Event)

    def read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if match := SERVING.search(line):
                self.address, rest, self.http = match.groups()
                self.rest = rest or ""
                self.serving.set()
        self.serving.set()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request to the metrics port."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(self.http + path, headers=headers)
        # Whose certificate it is, is for the tests of certificates to look at.
        context = ssl._create_unverified_context()
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS, context=context) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """All samples of /metrics by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry at least these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples().items() if found == name and wanted <= has)

    def logged(self, words: str) -> int:
        """How many lines of the log hold these words."""
        return sum(words in line for line in list(self.log))

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Exit status, once it has ended."""
        return self.process.wait(timeout=PATIENCE_SECONDS)


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(condition: Callable[[], object]) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def transport_asked() -> str:
    """The gRPC transport of servers whose arguments choose none."""
    return os.environ.get("BIRNN_TRANSPORT", "auto")


def start(
    models: Path | str, *arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start `birnn serve` on free ports; `prefix` is put before the command.

    The variable BIRNN_TRANSPORT chooses the gRPC transport of all tests that do not choose one themselves.
    """
    asked = "--transport" not in arguments and transport_asked() == "native"
    if asked and ("--tls-cert" in arguments or "BIRNN_TLS_CERT" in (env or {})):
        pytest.skip("the native gRPC transport has no TLS")
    command = [*prefix, sys.executable, "-m", "birnn.cli.main", "serve", "--models", str(models), "--device", "cpu"]
    command += ["--grpc-port", "0", "--metrics-port", "0", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})


@contextmanager
def running(
    models: Path | str = MODELS, *arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """A server that serves; killed at the end if it still runs."""
    with serving(start(models, *arguments, env=env, prefix=prefix)) as server:
        yield server


@contextmanager
def serving(process: subprocess.Popen[str]) -> Iterator[ServerProcess]:
    """The server that a process has become, once it serves; killed at the end if it still runs."""
    server = ServerProcess(process)
    reader = threading.Thread(target=server.read_log)
    reader.start()
    try:
        assert server.serving.wait(PATIENCE_SECONDS), "the server did not come up:\n" + "".join(server.log)
        assert server.address, "the server stopped:\n" + "".join(server.log)
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        reader.join()


def failure(
    models: Path | str, *arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> str:
    """What a server that must not start says, once it has stopped with an error."""
    process = start(models, *arguments, env=env, prefix=prefix)
    try:
        _, log = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert process.returncode not in (0, None), log
    assert "Traceback" not in log, log
    return log
