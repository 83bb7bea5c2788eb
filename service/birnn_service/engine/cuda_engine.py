"""The onnxruntime engine on CUDA: few shapes, page-locked buffers, two batches in flight."""

import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import PAD_ID
from birnn_service.engine.engine import PRECISION_NAMES, CudaPrecision, EngineInfo, Output
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.graph_edits import in_half_precision
from birnn_service.engine.grid import Grid
from birnn_service.engine.memory_need import MemoryNeed
from birnn_service.engine.onnx_engine import real_tokens
from birnn_service.engine.onnx_session import CUDA, input_name, open_session, placements
from birnn_service.engine.pinned import pinned_bytes
from birnn_service.engine.stored_graph import StoredGraph, stored_graphs
from birnn_service.errors import EngineError

# A step costs the same for one row as for hundreds.
MAX_ROWS = 512
# Steps times rows of one run; a larger batch is done in parts. Per-token encodings are large on the host, too.
MAX_CELLS = {Output.POOLED: 65_536, Output.TOKENS: 32_768}
# One batch is copied and prepared while another one is computed.
SLOTS = 2

Allocate = Callable[[int], NDArray[np.uint8]]


class CudaEngine:
    """Runs the two graphs of a bundle on a GPU.

    The first run of each new shape is slow, and memory grows with their number (onnxruntime #17443, #13500), so batches
    are rounded to the shapes of a grid, which `warm_up` runs through. Rows that fill a batch up have one token.

    CUDA graphs are not used. One is recorded for one shape, at fixed addresses and with the lengths that the host read
    while recording: a replay would be wrong for other lengths. They would need batches of sequences of exactly the same
    length and a recording for each length and number of rows, of which no two could be in flight.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: CudaPrecision = "fp32",
        slots: int | None = None,
        gpu_memory: GpuMemory | None = None,
        provider: str = CUDA,
        allocate: Allocate = pinned_bytes,
    ) -> None:
        """Load both graphs.

        Args:
            bundle: What to serve.
            precision: Of the recurrences; pooling is in float32 in any case.
            slots: Batches in flight.
            gpu_memory: What it reserves its memory of; by default it has a total of its own.
            provider: Execution provider; another one than CUDA only to try the rest without a GPU.
            allocate: Where the host's buffers come from; likewise.

        Raises:
            StartupError: onnxruntime cannot load a graph, did not take the provider, or too little GPU memory is left.
        """
        manifest = bundle.manifest
        slots = slots or SLOTS
        self.info = EngineInfo(
            engine=f"onnxruntime {ort.__version__}",
            device="cuda:0" if provider == CUDA else "cpu",
            precision=PRECISION_NAMES[precision],
            slots=slots,
            max_rows=MAX_ROWS,
            parallel_slots=False,
            features=manifest.features,
        )
        self._profiles = tempfile.TemporaryDirectory(prefix="birnn-")
        self._sessions: dict[Output, ort.InferenceSession] = {}
        self._free: SimpleQueue[dict[Output, _Buffers]] = SimpleQueue()
        graphs = stored_graphs(bundle)
        need = MemoryNeed.of(manifest, graphs[Output.POOLED], slots, MAX_CELLS)
        self._memory = (gpu_memory or GpuMemory()).reserve(bundle.label, need.least, need.most)
        try:
            cells = need.cells(self._memory.bytes)
            for output, graph in graphs.items():
                options = provider_options(need.arena(cells[output])) if provider == CUDA else {}
                self._sessions[output] = self._open(graph, output, precision, provider, options)
            self._grids = {output: Grid(MAX_ROWS, manifest.max_length, cells[output]) for output in Output}
            widths = {Output.POOLED: manifest.dimension, Output.TOKENS: manifest.token_dimension}
            for _ in range(slots):
                self._free.put(
                    {
                        output: _Buffers(session, output, self._grids[output], widths[output], allocate)
                        for output, session in self._sessions.items()
                    }
                )
        except BaseException:
            self.close()
            raise

    def _open(
        self, graph: StoredGraph, output: Output, precision: str, provider: str, options: dict[str, str]
    ) -> ort.InferenceSession:
        """The session of one graph, which records its runs."""
        profile = Path(self._profiles.name) / output.value
        if precision == "fp16":
            half = in_half_precision(graph.complete())
            return open_session(half, graph.label, provider, options, profile)
        whole = graph.model.SerializeToString()
        return open_session(whole, graph.label, provider, options, profile, graph.weights)

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        """Encode a batch; see `Engine.run`. Waits while all slots are taken."""
        most = self._grids[output].rows_at(self._grids[output].steps(int(batch.lengths.max())))
        buffers = self._free.get()
        try:
            starts = range(0, len(batch), most)
            parts = [buffers[output].run(batch.between(start, min(start + most, len(batch)))) for start in starts]
        except Exception as error:  # onnxruntime raises a dozen types of its own
            longest = int(batch.lengths.max())
            raise EngineError(f"onnxruntime failed on {len(batch)} rows of up to {longest} tokens: {error}") from error
        finally:
            self._free.put(buffers)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Free all sessions and buffers; see `Engine.close`."""
        while not self._free.empty():
            self._free.get()
        self._sessions.clear()
        self._memory.release()

    def placement(self) -> dict[str, str]:
        """Which provider each recurrent node has run on since loading; ends the recording, so call it once.

        Raises:
            StartupError: A graph has not been run yet, or has no recurrent node.
        """
        placed = placements(self._sessions)
        self._profiles.cleanup()
        return placed

    def warm_up(self, seconds: float) -> tuple[int, int]:
        """Run through the shapes of the grid, all slots at work, until done or for about `seconds`.

        The largest shapes come first: what the memory arena holds for them is enough for every other one, so that it
        does not grow any more.

        Returns:
            Shapes that were run, and how many there are, of both outputs.

        Raises:
            EngineError: A run failed.
        """
        shapes = [(output, *shape) for output in Output for shape in self._grids[output].shapes()]
        shapes.sort(key=lambda shape: shape[1] * shape[2] < self._largest(shape[0]))
        end = time.monotonic() + seconds
        run = 0
        with ThreadPoolExecutor(self.info.slots) as threads:
            for output, steps, rows in shapes:
                if time.monotonic() > end:
                    break
                # Each slot the same shape at the same time: so much memory is wanted at most.
                list(threads.map(self._warm_up, *zip(*[(output, steps, rows)] * self.info.slots, strict=True)))
                run += 1
        return run, len(shapes)

    def _warm_up(self, output: Output, steps: int, rows: int) -> None:
        buffers = self._free.get()
        try:
            buffers[output].warm_up(steps, rows)
        except Exception as error:  # onnxruntime raises a dozen types of its own
            raise EngineError(f"onnxruntime failed on {rows} rows of {steps} tokens: {error}") from error
        finally:
            self._free.put(buffers)

    def _largest(self, output: Output) -> int:
        """Cells of the largest shape."""
        return max(steps * rows for steps, rows in self._grids[output].shapes())


class _Buffers:
    """What one run of one graph reads and writes on the host, bound to its session."""

    def __init__(
        self, session: ort.InferenceSession, output: Output, grid: Grid, width: int, allocate: Allocate
    ) -> None:
        cells = max(steps * rows for steps, rows in grid.shapes())
        tokens = session.get_inputs()[0]
        self._session, self._output, self._grid, self._width = session, output, grid, width
        self._dtype = np.dtype(np.int32 if tokens.type == "tensor(int32)" else np.float32)
        # Beyond steps and rows: none of ids, F of features.
        self._token_shape = tuple(tokens.shape[2:])
        self._tokens = allocate(4 * cells * math.prod(self._token_shape)).view(self._dtype)
        self._lengths = allocate(4 * grid.max_rows).view(np.int32)
        self._values = allocate(4 * width * (cells if output is Output.TOKENS else grid.max_rows)).view(np.float32)
        self._binding = session.io_binding()

    def run(self, batch: RaggedBatch) -> NDArray[np.float32]:
        """Encode a batch that fits the grid; see `Engine.run`."""
        real = len(batch)
        steps, rows = self._grid.steps(int(batch.lengths.max())), self._grid.rows(real)
        tokens, lengths = self._inputs(steps, rows)
        tokens[:, :real] = batch.padded(PAD_ID, steps)
        tokens[:, real:] = PAD_ID
        lengths[:real] = batch.lengths
        lengths[real:] = 1
        values = self._compute(tokens, lengths)
        # Copies: the next run writes into the same memory.
        return values[:real].copy() if self._output is Output.POOLED else real_tokens(values[:, :real], batch.lengths)

    def warm_up(self, steps: int, rows: int) -> None:
        """Run a batch of this shape."""
        tokens, lengths = self._inputs(steps, rows)
        tokens[:] = PAD_ID
        lengths[:] = steps
        self._compute(tokens, lengths)

    def _inputs(self, steps: int, rows: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Tokens [T, B, ...] and lengths [B], to be filled."""
        shape = (steps, rows, *self._token_shape)
        return self._tokens[: math.prod(shape)].reshape(shape), self._lengths[:rows]

    def _compute(self, tokens: NDArray[Any], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        """What the graph gives; valid until the next run."""
        steps, rows = tokens.shape[:2]
        shape = (rows, self._width) if self._output is Output.POOLED else (steps, rows, self._width)
        # Binding an input is what copies it to the GPU, so that it has to be bound anew for each run.
        self._binding.bind_cpu_input(input_name(self._session), tokens)
        self._binding.bind_cpu_input("lengths", lengths)
        self._binding.bind_output(self._output.value, "cpu", 0, np.float32, shape, self._values.ctypes.data)
        self._session.run_with_iobinding(self._binding)
        return self._values[: math.prod(shape)].reshape(shape)


def provider_options(memory: int) -> dict[str, str]:
    """Options of the CUDA provider for a session that may take `memory` bytes of the GPU.

    CUDA multiplies fp32 matrices in TF32 unless told otherwise, which is off by 1e-3.
    """
    return {
        "device_id": "0",
        "gpu_mem_limit": str(memory),
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
    }
