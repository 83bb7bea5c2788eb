"""The onnxruntime engine on a CPU: one run a core, and a lone one on two."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.cores import available_cores
from birnn_service.engine.directions import Directions
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.engine.onnx_session import CPU, input_name, open_session, placements
from birnn_service.engine.stored_graph import stored_graphs
from birnn_service.errors import EngineError

# Padding is paid in full and the weights of a step stay in cache: beyond 32 rows nothing is gained.
MAX_ROWS = 32
# Fewer cells [T, B] are done before a second core has begun.
LEAST_CELLS_TO_SPLIT = 16


class OnnxEngine:
    """Runs the two graphs of a bundle on a CPU.

    Inputs and outputs are plain arrays: binding reused buffers instead (onnxruntime's I/O binding) was measured to cost
    4 us a run more than it saves, with 1 row as with 32.
    """

    def __init__(self, bundle: Bundle, *, slots: int | None = None) -> None:
        """Load both graphs, as a whole and by direction.

        Raises:
            StartupError: onnxruntime cannot load a graph.
        """
        slots = slots or available_cores()
        run_slots = min(2, slots, available_cores())
        self.info = EngineInfo(
            engine=f"onnxruntime {ort.__version__}",
            device="cpu",
            precision=bundle.manifest.dtype,
            slots=slots,
            max_rows=MAX_ROWS,
            parallel_slots=True,
            run_slots=run_slots,
            features=bundle.manifest.features,
        )
        self._profiles = tempfile.TemporaryDirectory(prefix="birnn-")
        graphs = stored_graphs(bundle)
        self._sessions = {
            output: open_session(
                graph.model.SerializeToString(),
                graph.label,
                CPU,
                profile=Path(self._profiles.name) / output.value,
                weights=graph.weights,
            )
            for output, graph in graphs.items()
        }
        self._directions = {
            output: Directions(graph.complete(), graph.label) for output, graph in graphs.items() if run_slots > 1
        }

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        """Encode a batch; see `Engine.run`."""
        session = self._sessions[output]
        tokens = batch.padded()
        feeds = {input_name(session): tokens, "lengths": batch.lengths.astype(np.int32)}
        try:
            if slots > 1 and output in self._directions and len(batch) * len(tokens) >= LEAST_CELLS_TO_SPLIT:
                values = self._directions[output].run(feeds)
            else:
                values = session.run([output.value], feeds)[0]
        except Exception as error:  # onnxruntime raises a dozen types of its own
            raise EngineError(f"onnxruntime failed on a batch of shape {tokens.shape}: {error}") from error
        return values if output is Output.POOLED else real_tokens(values, batch.lengths)

    def placement(self) -> dict[str, str]:
        """Which provider each recurrent node has run on since loading; ends the recording, so call it once.

        Raises:
            StartupError: A graph has not been run yet, or has no recurrent node.
        """
        placed = placements(self._sessions)
        self._profiles.cleanup()
        return placed

    def close(self) -> None:
        """Free all sessions; see `Engine.close`."""
        self._sessions.clear()
        self._directions.clear()


def real_tokens(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of [T, B, 2H] each row's own steps, back to back in order of rows, [tokens, 2H]."""
    real = np.arange(len(values)) < lengths[:, None]
    tokens: NDArray[np.float32] = values.transpose(1, 0, 2)[real]
    return tokens
