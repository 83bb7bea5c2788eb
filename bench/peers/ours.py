"""Our own server, and the ways to start it that are compared."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from bench.callers import Method
from bench.machine import PYTHONPATH
from bench.peers.server import Command, Settings, free_port
from birnn_bundle.bundle import Bundle

OURS = "ours"
CALLS: tuple[Method, ...] = ("encode", "stream", "rest", "openai")
# Ways to start our server, and what is called besides Open Inference over gRPC. To add one, add a line. One that this
# server does not know or that this machine cannot run is listed in the report with the reason.
VARIANTS: dict[str, tuple[tuple[str, ...], tuple[Method, ...]]] = {
    "plain": ((), CALLS),
    "bf16": (("--precision", "bf16"), ()),
    "int8": (("--precision", "int8"), ()),
    "grpcio": (("--transport", "grpcio"), CALLS),
    "grpcio bf16": (("--transport", "grpcio", "--precision", "bf16"), ()),
    "grpcio int8": (("--transport", "grpcio", "--precision", "int8"), ()),
}


@dataclass(frozen=True, slots=True)
class Ours:
    """`birnn serve`, with nothing to tune.

    Attributes:
        arguments: Further ones of `birnn serve`.
        calls: What else is to be called besides Open Inference over gRPC.
        label: What tells it from others of ours in reports; by default its arguments.
    """

    arguments: tuple[str, ...] = ()
    calls: tuple[Method, ...] = ()
    label: str | None = None

    @classmethod
    def variant(cls, name: str) -> "Ours":
        """One of `VARIANTS`."""
        arguments, calls = VARIANTS[name]
        return cls(arguments, calls, "" if name == "plain" else name)

    @property
    def name(self) -> str:
        """`ours`, with what tells it from others."""
        return f"{OURS} {' '.join(self.arguments) if self.label is None else self.label}".strip()

    def candidates(self, cores: int) -> Sequence[Settings]:
        """Nothing to search."""
        return [{}]

    def prepare(self, bundle: Bundle, settings: Settings, cores: int, scratch: Path) -> Command:
        """Serve the models folder that the bundle lies in."""
        place = scratch / "models" / bundle.manifest.name
        place.mkdir(parents=True)
        (place / str(bundle.manifest.version)).symlink_to(bundle.path)
        port, metrics, http = free_port(), free_port(), free_port()
        arguments = [sys.executable, "-m", "birnn.cli.main", "serve", "--models", str(scratch / "models")]
        arguments += ["--device", "cpu", "--grpc-port", str(port), "--metrics-port", str(metrics)]
        arguments += ["--http-port", str(http), *self.arguments]
        # The source tree, also where another one is installed.
        variables = {"PYTHONPATH": PYTHONPATH}
        return Command(
            arguments,
            f"127.0.0.1:{port}",
            variables,
            metrics=f"http://127.0.0.1:{metrics}/metrics",
            http=f"127.0.0.1:{http}",
            calls=self.calls,
        )

    def versions(self) -> list[str]:
        """This distribution and what it runs on."""
        return [f"{name}=={version(name)}" for name in ("birnn-serving", "grpcio", "numpy", "onnxruntime", "uvloop")]


def precision_of(arguments: Sequence[str]) -> str:
    """The precision that a command line of `birnn serve` asks for."""
    chosen = dict(pairwise(arguments))
    return chosen.get("--precision", "fp32")


def is_ours(server: str) -> bool:
    """Whether a server of a report is ours, with whatever arguments."""
    return server == OURS or server.startswith(f"{OURS} ")
