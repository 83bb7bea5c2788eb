"""Ray Serve behind its gRPC proxy."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bench.environments import environment, installed
from bench.peers.server import Command, Settings, free_port, model_config
from birnn_bundle.bundle import Bundle


@dataclass(frozen=True, slots=True)
class RayServe:
    """A Ray Serve deployment with `serve.batch`."""

    name: str = "Ray Serve"

    def candidates(self, cores: int) -> Sequence[Settings]:
        """Largest batch (in calls), longest wait, replicas, and Ray's switch for throughput.

        The switch's direct ingress is left out: it needs another proxy in front.
        """
        return [
            {"max_batch_size": size, "batch_wait_timeout_s": wait, "replicas": replicas, "throughput_optimized": True}
            for replicas, (size, wait) in product(sorted({1, cores}), ((8, 0.0), (64, 0.001)))
        ] + [{"max_batch_size": 64, "batch_wait_timeout_s": 0.001, "replicas": cores, "throughput_optimized": False}]

    def prepare(self, bundle: Bundle, settings: Settings, cores: int, scratch: Path) -> Command:
        """Write the model's configuration."""
        config = scratch / "model_config.bin"
        config.write_bytes(model_config(bundle).SerializeToString())
        port = free_port()
        python = environment("ray") / "bin" / "python"
        arguments = [str(python), "-m", "bench.peers.served.ray_app", "--bundle", str(bundle.path)]
        arguments += ["--config", str(config), "--grpc-port", str(port), "--http-port", str(free_port())]
        arguments += ["--cores", str(cores), "--replicas", str(settings["replicas"])]
        arguments += ["--max-batch-size", str(settings["max_batch_size"])]
        arguments += ["--batch-wait-timeout", str(settings["batch_wait_timeout_s"])]
        variables = {
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray asks for a token and keeps one in the home folder unless it is told one.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": str(int(settings["throughput_optimized"])),
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
        }
        return Command(arguments, f"127.0.0.1:{port}", variables)

    def versions(self) -> list[str]:
        """Ray and what its deployment uses."""
        return [line for line in installed(environment("ray")) if line.startswith(("ray=", "onnx", "numpy", "grpcio="))]
