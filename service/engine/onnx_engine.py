"""The onnxruntime engine, on a CPU or on CUDA, and never silently on the other one."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bundle.bundle import Bundle
from bundle.ragged import RaggedBatch
from service.engine.cores import available_cores
from service.engine.engine import EngineInfo, Output
from service.errors import EngineError, StartupError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
RECURRENT_OPS = {"GRU", "LSTM", "RNN"}
# On a CPU padding is paid in full and the weights of a step stay in cache: beyond 32 rows nothing is gained. On a GPU a
# step costs the same for one row and for hundreds.
MAX_ROWS = {CPU: 32, CUDA: 512}


class OnnxEngine:
    """Runs the two graphs of a bundle."""

    def __init__(self, bundle: Bundle, provider: str, *, slots: int | None = None, gpu_memory_mib: int = 4096) -> None:
        """Load both graphs.

        Raises:
            StartupError: onnxruntime cannot load a graph, or did not take the provider asked for.
        """
        on_cpu = provider == CPU
        self.info = EngineInfo(
            engine=f"onnxruntime {ort.__version__}",
            device="cpu" if on_cpu else "cuda:0",
            precision=bundle.manifest.dtype,
            slots=slots or (available_cores() if on_cpu else 2),
            max_rows=MAX_ROWS[provider],
            parallel_slots=on_cpu,
            features=bundle.manifest.features,
        )
        self._provider = provider
        self._input = bundle.manifest.inputs
        self._step_multiple = 1 if on_cpu else 8
        self._profiles = tempfile.TemporaryDirectory(prefix="birnn-")
        graphs = {Output.POOLED: bundle.manifest.graphs.pooled, Output.TOKENS: bundle.manifest.graphs.tokens}
        self._sessions = {
            output: self._open(bundle.path / file, provider, gpu_memory_mib) for output, file in graphs.items()
        }

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        """Encode a batch; see `Engine.run`."""
        lengths = batch.lengths.astype(np.int32)
        ids = batch.padded(steps=self._steps(int(lengths.max())))
        try:
            (values,) = self._sessions[output].run([output.value], {self._input: ids, "lengths": lengths})
        except Exception as error:  # onnxruntime raises a dozen types of its own
            raise EngineError(f"onnxruntime failed on a batch of shape {ids.shape}: {error}") from error
        if output is Output.POOLED:
            pooled: NDArray[np.float32] = values
            return pooled
        # [T, B, 2H] -> [B, T, 2H], of which each row's true steps: back to back in order.
        real = np.arange(len(ids)) < lengths[:, None]
        tokens: NDArray[np.float32] = values.transpose(1, 0, 2)[real]
        return tokens

    def placement(self) -> dict[str, str]:
        """Which provider each recurrent node has run on since loading; ends the recording, so call it once.

        Raises:
            StartupError: A graph has not been run yet, or has no recurrent node.
        """
        placed: dict[str, str] = {}
        for output, session in self._sessions.items():
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            nodes = [event["args"] for event in events if event.get("args", {}).get("op_name") in RECURRENT_OPS]
            found = {f"{output.value}:{args['node_index']}": str(args["provider"]) for args in nodes}
            if not found:
                raise StartupError(f"no recurrent node of the {output.value} graph was seen to run")
            placed |= found
        self._profiles.cleanup()
        return placed

    def _steps(self, longest: int) -> int:
        # A first run of each new shape is slow on CUDA (onnxruntime #17443): few shapes, at the price of some padding.
        return -(-longest // self._step_multiple) * self._step_multiple

    def _open(self, path: Path, provider: str, gpu_memory_mib: int) -> ort.InferenceSession:
        options = ort.SessionOptions()
        # One run per core beats several cores on one run: the recurrence is a chain, and its gate loops use one thread.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Recorded until `placement` has read where the nodes ran.
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._profiles.name) / path.stem)
        try:
            session = ort.InferenceSession(
                path, options, providers=[(provider, provider_options(provider, gpu_memory_mib))]
            )
        except Exception as error:  # onnxruntime raises a dozen types of its own
            raise StartupError(f"onnxruntime cannot load {path}: {error}") from error
        if session.get_providers()[0] != provider:
            raise StartupError(
                f"asked for {provider}, onnxruntime took {session.get_providers()[0]}: {missing_cuda_hint()}"
            )
        return session


def provider_options(provider: str, gpu_memory_mib: int) -> Mapping[str, Any]:
    """Options of an execution provider.

    CUDA multiplies fp32 matrices in TF32 unless told otherwise, which is off by 1e-3.
    """
    if provider == CPU:
        return {}
    return {
        "device_id": "0",
        "gpu_mem_limit": str(gpu_memory_mib << 20),
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
    }


def missing_cuda_hint() -> str:
    """What to do where CUDA does not work."""
    return (
        "CUDA needs an NVIDIA driver, onnxruntime-gpu (pip install 'birnn-serving[service,gpu]') and no plain "
        f"onnxruntime beside it; this onnxruntime {ort.__version__} offers {', '.join(ort.get_available_providers())}"
    )
