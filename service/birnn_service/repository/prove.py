"""The process that tries bundles before the server loads them.

Usage: python -m birnn_service.repository.prove. The first line of its input is a `Task`; each further line is a path, a
name and a version, as JSON. It answers each with a line: the digest of the manifest, or what is wrong.

A bundle that hangs, takes all memory or crashes a library does so here. This process has no secrets of the server's
environment, a limit on its memory, and ends with the server.
"""

import ctypes
import json
import logging
import os
import signal
import sys
from pathlib import Path

from birnn_bundle.errors import is_refusal
from birnn_bundle.onnxruntime import ort
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.onnx_session import CUDA
from birnn_service.repository.loading import load_encoder, reason_of
from birnn_service.settings import Settings

# Of linux/prctl.h.
_SET_PDEATHSIG, _SET_NO_NEW_PRIVS = 1, 38
# Bytes of a file that it writes: what onnxruntime records of the golden runs.
MOST_FILE_BYTES = 256 << 20
MOST_FILES = 256
# What C++ says where memory is short, and PyO3 where Python has none for an object.
NO_MEMORY = ("bad_alloc", "PyObject pointer is null")


def main() -> None:
    """Answer until there is no more input."""
    # Whatever libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    _limit(task["memory"], task["niceness"])
    logging.disable()
    settings = _on_a_cpu(Settings(**task["settings"]))
    for line in sys.stdin:
        path, name, version = json.loads(line)
        answers.write(json.dumps(_prove(Path(path), (name, version), settings)) + "\n")
        answers.flush()


def _prove(path: Path, address: tuple[str, str], settings: Settings) -> dict[str, str]:
    try:
        encoder = load_encoder(path, address, settings, GpuMemory(settings.gpu_memory_mib))
    except BaseException as error:
        if not is_refusal(error):
            raise
        if _is_out_of_memory(error):
            return {"memory": ""}
        return {"error": reason_of(error, path, "/".join(address))[0]}
    encoder.engine.close()
    return {"digest": encoder.bundle.digest}


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that there is no more memory, in Python, C++ or Rust."""
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
            return True
        error = error.__cause__
    return False


def _on_a_cpu(settings: Settings) -> Settings:
    """The settings for a CPU: a GPU's memory is the server's, and its golden gate on the GPU comes afterwards."""
    if settings.device == "cpu" or settings.engine == "native" or CUDA not in ort.get_available_providers():
        return settings
    return settings.model_copy(update={"device": "cpu", "engine": "auto", "precision": "fp32", "slots": None})


def _limit(memory: int, niceness: int) -> None:
    if sys.platform != "linux":
        return
    import resource

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.nice(niceness)
    limits = {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: MOST_FILE_BYTES,
        resource.RLIMIT_NOFILE: MOST_FILES,
    }
    for kind, limit in limits.items():
        most = resource.getrlimit(kind)[1]
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    main()
