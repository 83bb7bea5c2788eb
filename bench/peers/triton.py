"""Triton Inference Server: the real tritonserver with a model of its Python backend."""

import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bench.environments import environment, installed, site_packages
from bench.peers.server import Command, Settings, free_port
from birnn_bundle.bundle import Bundle

MODEL = Path(__file__).parent / "served" / "triton_model.py"


@dataclass(frozen=True, slots=True)
class Triton:
    """tritonserver with dynamic batching.

    Attributes:
        observed: Whether it also has HTTP and metrics; a comparison needs neither.
        name: What reports call it.
    """

    observed: bool = False
    name: str = "Triton"

    def candidates(self, cores: int) -> Sequence[Settings]:
        """Largest batch, longest delay in the queue, and instances of the model: one, or one a core."""
        return [
            {"max_batch_size": size, "max_queue_delay_us": delay, "instances": instances}
            for instances, size, delay in product(sorted({1, cores}), (32, 64, 128), (0, 1000))
        ]

    def prepare(self, bundle: Bundle, settings: Settings, cores: int, scratch: Path) -> Command:
        """Write a model repository and a folder of backends with the stub of this Python."""
        place = environment("triton")
        packages = site_packages(place)
        triton = packages / "pytriton" / "tritonserver"
        write_repository(scratch / "models", bundle, settings)
        backends = scratch / "backends"
        shutil.copytree(triton / "backends" / "python", backends / "python")
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        address = f"127.0.0.1:{free_port()}"
        arguments = [str(triton / "bin" / "tritonserver"), "--model-repository", str(scratch / "models")]
        arguments += ["--backend-directory", str(backends), "--grpc-address", "127.0.0.1"]
        arguments += ["--grpc-port", address.rpartition(":")[2]]
        http = metrics = None
        for what in ("http", "metrics"):
            arguments += [f"--allow-{what}", str(self.observed).lower()]
        if self.observed:
            http, metrics = free_port(), free_port()
            arguments += ["--http-address", "127.0.0.1", "--http-port", str(http)]
            arguments += ["--metrics-address", "127.0.0.1", "--metrics-port", str(metrics)]
        libraries = f"{packages / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
        # The stub finds its packages by the `python3` that comes first.
        variables = {"LD_LIBRARY_PATH": libraries, "PATH": f"{place / 'bin'}:/usr/bin:/bin"}
        return Command(
            arguments,
            address,
            variables,
            metrics=f"http://127.0.0.1:{metrics}/metrics" if metrics else None,
            http=f"127.0.0.1:{http}" if http else None,
        )

    def versions(self) -> list[str]:
        """The wheel that holds tritonserver 2.51, and what its model uses."""
        return [
            line for line in installed(environment("triton")) if line.startswith(("nvidia-pytriton", "onnx", "numpy"))
        ]


def write_repository(folder: Path, bundle: Bundle, settings: Settings) -> None:
    """Write a model repository that serves `bundle` into the new folder `folder`."""
    model = folder / bundle.manifest.name
    (model / "1").mkdir(parents=True)
    shutil.copy(MODEL, model / "1" / "model.py")
    # A request of more sequences than this is refused, so it cannot be below what one call carries; the dynamic batcher
    # gathers up to it.
    (model / "config.pbtxt").write_text(
        f"""\
name: "{bundle.manifest.name}"
backend: "python"
max_batch_size: {settings["max_batch_size"]}
input [{{ name: "text", data_type: TYPE_STRING, dims: [1] }}]
output [{{ name: "embedding", data_type: TYPE_FP32, dims: [{bundle.manifest.dimension}] }}]
dynamic_batching {{ max_queue_delay_microseconds: {settings["max_queue_delay_us"]} }}
instance_group [{{ count: {settings["instances"]}, kind: KIND_CPU }}]
parameters {{ key: "bundle" value: {{ string_value: "{bundle.path}" }} }}
"""
    )
