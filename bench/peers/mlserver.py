"""MLServer with a custom runtime."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bench.environments import environment, installed
from bench.peers.server import Command, Settings, free_port, model_config
from birnn_bundle.bundle import Bundle

# Read by bench.peers.served.mlserver_start.
CONFIG_FILE = "model_config.bin"


@dataclass(frozen=True, slots=True)
class MLServer:
    """MLServer with adaptive batching and parallel workers."""

    name: str = "MLServer"

    def candidates(self, cores: int) -> Sequence[Settings]:
        """Adaptive batching (largest batch 0: off) and processes for inference; 0 of them is the server's own."""
        batching = [(0, 0.0), (32, 0.001), (64, 0.001), (64, 0.005)]
        return [
            {"max_batch_size": size, "max_batch_time": time, "parallel_workers": workers}
            for workers, (size, time) in [*product(sorted({1, cores}), batching), (0, (0, 0.0)), (0, (64, 0.001))]
        ]

    def prepare(self, bundle: Bundle, settings: Settings, cores: int, scratch: Path) -> Command:
        """Write settings.json and model-settings.json."""
        port = free_port()
        write_settings(
            scratch, bundle, settings, {"grpc_port": port, "http_port": free_port(), "metrics_port": free_port()}
        )
        python = environment("mlserver") / "bin" / "python"
        return Command([str(python), "-m", "bench.peers.served.mlserver_start", str(scratch)], f"127.0.0.1:{port}")

    def versions(self) -> list[str]:
        """MLServer and what its runtime uses."""
        return [
            line
            for line in installed(environment("mlserver"))
            if line.startswith(("mlserver", "onnx", "numpy", "grpcio="))
        ]


def write_settings(folder: Path, bundle: Bundle, settings: Settings, ports: dict[str, int]) -> None:
    """Write an MLServer folder that serves `bundle`."""
    server = {
        "debug": False,
        "host": "127.0.0.1",
        "parallel_workers": settings["parallel_workers"],
        "metrics_dir": str(folder / "metrics"),
        **ports,
    }
    model = {
        "name": bundle.manifest.name,
        "implementation": "bench.peers.served.mlserver_runtime.EncoderRuntime",
        "max_batch_size": settings["max_batch_size"],
        "max_batch_time": settings["max_batch_time"],
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, bundle.manifest.dimension]}],
        "parameters": {"uri": str(bundle.path), "version": "1"},
    }
    place = folder / bundle.manifest.name
    place.mkdir(parents=True)
    (folder / "metrics").mkdir()
    (folder / "settings.json").write_text(json.dumps(server, indent=1))
    (folder / CONFIG_FILE).write_bytes(model_config(bundle).SerializeToString())
    (place / "model-settings.json").write_text(json.dumps(model, indent=1))
