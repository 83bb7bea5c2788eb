"""The native CPU engine: the kernels of `native/` on the weights of a bundle's graph."""

from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_native.kernel import POOLINGS, Pooling
from birnn_native.library import NativeUnavailableError, instruction_sets, precisions
from birnn_native.library import Precision as NativePrecision
from birnn_native.recurrent_graph import UnsupportedGraphError, read_graph
from birnn_service.engine.cores import available_cores
from birnn_service.engine.engine import PRECISION_NAMES, EngineInfo, Output
from birnn_service.engine.stored_graph import stored_graph
from birnn_service.errors import EngineError, StartupError

# Beyond 32 rows a row costs 2 % less for each doubling, and its neighbors wait twice as long.
MAX_ROWS = 32


def is_fast() -> bool:
    """Whether there are kernels in float32 for this processor's vector instructions: without, onnxruntime is faster."""
    try:
        return "avx2" in instruction_sets()
    except NativeUnavailableError:
        # Loading it raises this error, with all that it says.
        return True


def native_precisions() -> list[NativePrecision]:
    """What the kernels compute in on this processor, the fastest first; nothing where they were not built."""
    try:
        return list(precisions())
    except NativeUnavailableError:
        return []


class NativeEngine:
    """Runs one bundle on CPU cores: packed batches, one core a run, or two for both directions of a lone one."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: NativePrecision = "fp32",
        slots: int | None = None,
        instruction_set: str | None = None,
    ) -> None:
        """Read the weights from the bundle's graph and pack them.

        Args:
            bundle: The bundle.
            precision: Of the products.
            slots: Batches that run at the same time; one a core by default.
            instruction_set: One of `native.library.instruction_sets()`; the best by default.

        Raises:
            StartupError: The kernels were not built, do not compute in this precision here, or cannot run the graph.
        """
        label = bundle.label
        try:
            chosen = instruction_set or next(iter(instruction_sets()))
            graph = read_graph(stored_graph(bundle, Output.POOLED).complete())
            self._kernel = graph.kernel(precision=precision, instruction_set=chosen)
        except (NativeUnavailableError, UnsupportedGraphError, ValueError) as error:
            raise StartupError(f"{label}: the native engine cannot run it: {error}") from error
        self._poolings = {Output.POOLED: POOLINGS[bundle.manifest.pooling], Output.TOKENS: Pooling.TOKENS}
        count = slots or available_cores()
        self.info = EngineInfo(
            engine=f"native {version('birnn-serving')} {self._kernel.instruction_set}",
            device="cpu",
            precision=PRECISION_NAMES[precision],
            slots=count,
            max_rows=MAX_ROWS,
            parallel_slots=True,
            packed=True,
            run_slots=min(2, count),
            features=bundle.manifest.features,
        )

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        """Encode a batch; see `Engine.run`."""
        try:
            return self._kernel.run(batch.values, batch.offsets, self._poolings[output], slots)
        except ValueError as error:
            raise EngineError(f"the native engine refused a batch of {len(batch)}: {error}") from error

    def close(self) -> None:
        """Free the weights; see `Engine.close`."""
        self._kernel.close()
