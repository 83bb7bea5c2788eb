"""The process in which the doctor tries what may crash, hang or be missing.

Usage: python -m birnn_service.doctor.probe, with a task as JSON on its input. It answers with lines of JSON. Nothing is
imported before the task that needs it.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Of linux/prctl.h: this process is to end with the doctor.
SET_PDEATHSIG = 1
SMI_SECONDS = 30
# cudaDevAttrComputeCapabilityMajor and Minor of the driver's interface.
CAPABILITY = (75, 76)
# Shapes of the sweep: rows, and tokens of each.
ROWS = {"cpu": (1, 8, 32), "cuda": (1, 32, 256, 512)}
TOKENS = (16, 64, 256)

Answer = dict[str, Any]


def main() -> None:
    """Do the task."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Whatever libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task = json.load(sys.stdin)
    for answer in TASKS[task.pop("task")](**task):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def server() -> Iterator[Answer]:
    """The version of the server, if everything that it imports can be imported."""
    import birnn_service.commands  # noqa: F401
    from birnn_service.server_version import server_version

    yield {"version": server_version()}


def kernels() -> Iterator[Answer]:
    """Instruction sets of the native kernels, and the precisions of each."""
    from birnn_native.library import instruction_sets

    yield {"sets": instruction_sets()}


def front() -> Iterator[Answer]:
    """Nothing, if the native gRPC front end can be loaded."""
    from birnn_native.front import load_front

    load_front()
    yield {}


def runtime() -> Iterator[Answer]:
    """Version and execution providers of onnxruntime, and the CUDA that it was built for."""
    from birnn_bundle.onnxruntime import ort

    cuda = getattr(ort, "cuda_version", "") or ""
    yield {"version": ort.__version__, "providers": ort.get_available_providers(), "cuda": cuda}


def driver() -> Iterator[Answer]:
    """NVIDIA's driver and its GPUs."""
    library = ctypes.CDLL("libcuda.so.1")
    if status := library.cuInit(0):
        raise OSError(f"cuInit gave error {status}: the driver finds no GPU that it may use")
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    gpus = []
    for number in range(count.value):
        name, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
        library.cuDeviceGetName(name, len(name), number)
        library.cuDeviceTotalMem_v2(ctypes.byref(size), number)
        capability = [ctypes.c_int() for _ in CAPABILITY]
        for value, attribute in zip(capability, CAPABILITY, strict=True):
            library.cuDeviceGetAttribute(ctypes.byref(value), attribute, number)
        gpus.append(
            {
                "name": name.value.decode(errors="replace"),
                "memory": size.value,
                "capability": ".".join(str(value.value) for value in capability),
            }
        )
    yield {"cuda": _dotted(version.value), "release": _release(), "gpus": gpus}


def libraries() -> Iterator[Answer]:
    """Versions of the libraries that onnxruntime needs on a GPU; an error in place of a version."""
    from birnn_bundle.onnxruntime import ort
    from birnn_service.engine.cuda_runtime import cuda_runtime, preload

    preload()
    major = str(getattr(ort, "cuda_version", "")).partition(".")[0]

    def runtime_version() -> str:
        version = ctypes.c_int()
        cuda_runtime().cudaRuntimeGetVersion(ctypes.byref(version))
        return _dotted(version.value)

    def cudnn_version() -> str:
        version = int(ctypes.CDLL("libcudnn.so.9").cudnnGetVersion())
        return f"{version // 10000}.{version // 100 % 100}.{version % 100}"

    def cublas() -> str:
        ctypes.CDLL(f"libcublas.so.{major}")
        return "there"

    found: dict[str, Callable[[], str]] = {"CUDA": runtime_version, "cuDNN": cudnn_version, "cuBLAS": cublas}
    for name, version in found.items():
        try:
            yield {"name": name, "version": version()}
        except OSError as error:
            yield {"name": name, "error": str(error)}


def bundles(models: str | None) -> Iterator[Answer]:
    """The bundles that a server would take, and those that cannot be fetched."""
    from birnn_service.sources.opening import open_source
    from birnn_service.sources.options import StoreOptions
    from birnn_service.sources.source import SourceError

    source = open_source(models, StoreOptions())
    for address in sorted(source.look().bundles):
        label = "/".join(address)
        try:
            yield {"bundle": label, "path": str(source.fetch(address))}
        except SourceError as error:
            yield {"bundle": label, "error": str(error)}


def trials(bundles: list[Answer], device: str, engine: str, precision: str, seconds: float) -> Iterator[Answer]:
    """The golden gate of each bundle on one engine, then its speed, within `seconds` for each bundle."""
    from birnn_bundle.bundle import Bundle
    from birnn_bundle.errors import is_refusal
    from birnn_service.engine.engine import PRECISION_NAMES
    from birnn_service.engine.gate import allowed_record
    from birnn_service.engine.loading import load_engine
    from birnn_service.errors import StartupError

    for bundle in bundles:
        name = bundle["bundle"]
        yield {"begun": name}
        try:
            loaded = Bundle.load(Path(bundle["path"]))
            if precision != "fp32":
                try:
                    allowed_record(loaded, PRECISION_NAMES[precision])
                except StartupError as error:
                    yield {"bundle": name, "verdict": "not allowed", "reason": str(error)}
                    continue
            proven = load_engine(loaded, device, engine=engine, precision=precision)  # type: ignore[arg-type]
        except BaseException as error:
            if not is_refusal(error):
                raise
            yield {"bundle": name, "verdict": "refused", "reason": str(error)}
            continue
        report, info = proven.report, proven.engine.info
        yield {
            "bundle": name,
            "verdict": "good",
            "runs": info.label,
            "pooled_error": report.pooled,
            "tokens_error": report.tokens,
            "cosine": report.cosine,
            "sweep": list(_sweep(proven.engine, device, loaded.manifest.max_length, seconds)),
        }
        proven.engine.close()


def _sweep(engine: Any, device: str, longest: int, seconds: float) -> Iterator[Answer]:
    """Seconds of batches of growing size, until `seconds` are over; on a CPU those of one core."""
    from birnn_service.engine.engine import Output
    from birnn_service.queueing.cost import measure

    end = time.monotonic() + seconds
    for rows in ROWS[device]:
        for tokens in TOKENS:
            if tokens <= longest and time.monotonic() < end:
                took = measure(engine, Output.POOLED, rows, tokens)
                yield {"rows": rows, "tokens": tokens, "seconds": took, "sequences_per_second": rows / took}


def _dotted(version: int) -> str:
    """13020 is CUDA 13.2."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _release() -> str:
    """The driver's own version, such as 580.65.06; empty where it does not say."""
    if (command := shutil.which("nvidia-smi")) is not None:
        query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            return subprocess.run(query, capture_output=True, text=True, timeout=SMI_SECONDS).stdout.partition("\n")[0]
        except (OSError, subprocess.SubprocessError):
            pass
    try:
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", Path("/proc/driver/nvidia/version").read_text(encoding="ascii"))
    except OSError:
        return ""
    return found[0] if found else ""


TASKS: dict[str, Callable[..., Iterator[Answer]]] = {
    task.__name__: task for task in (server, kernels, front, runtime, driver, libraries, bundles, trials)
}

if __name__ == "__main__":
    main()
