"""Our own server."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.machine import PYTHONPATH
from bench.peers.server import Command, Settings, free_port
from birnn_bundle.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Ours:
    """`birnn serve`, with nothing to tune; `arguments` are further ones."""

    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`ours`, with the further arguments."""
        return f"ours {' '.join(self.arguments)}".strip()

    def candidates(self, cores: int) -> Sequence[Settings]:
        """Nothing to search."""
        return [{}]

    def prepare(self, bundle: Bundle, settings: Settings, cores: int, scratch: Path) -> Command:
        """Serve the models folder that the bundle lies in."""
        place = scratch / "models" / bundle.manifest.name
        place.mkdir(parents=True)
        (place / str(bundle.manifest.version)).symlink_to(bundle.path)
        port, metrics = free_port(), free_port()
        arguments = [sys.executable, "-m", "birnn.cli.main", "serve", "--models", str(scratch / "models")]
        arguments += ["--device", "cpu", "--grpc-port", str(port), "--metrics-port", str(metrics), *self.arguments]
        # The source tree, also where another one is installed.
        variables = {"PYTHONPATH": PYTHONPATH}
        return Command(arguments, f"127.0.0.1:{port}", variables, f"http://127.0.0.1:{metrics}/metrics")

    def versions(self) -> list[str]:
        """This distribution and what it runs on."""
        return [f"{name}=={version(name)}" for name in ("birnn-serving", "grpcio", "numpy", "onnxruntime", "uvloop")]
