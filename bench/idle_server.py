"""Our server with an engine that costs nothing: what remains is the front end.

`python -m bench.idle_server` takes the options of `birnn serve`. Everything is the real thing but the engine, which
answers with zeros and is exempt from the golden gate; nothing else is replaced.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import birnn_service.repository.loading
from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_service.commands import serve
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.engine.gate import GateReport, Limits
from birnn_service.engine.loading import Proven


class IdleEngine:
    """Answers zeros at once."""

    def __init__(self, bundle: Bundle) -> None:
        self.info = EngineInfo(
            engine="none", device="cpu", precision="float32", slots=1, max_rows=1024, parallel_slots=True, packed=True
        )
        manifest = bundle.manifest
        self._widths = {Output.POOLED: manifest.dimension, Output.TOKENS: manifest.token_dimension}

    def close(self) -> None:
        """Nothing to free."""

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        """Zeros of the right shape."""
        rows = len(batch) if output is Output.POOLED else batch.tokens
        return np.zeros((rows, self._widths[output]), dtype=np.float32)


def load_idle_engine(bundle: Bundle, *arguments: Any, **options: Any) -> Proven:
    """In place of `load_engine`."""
    return Proven(IdleEngine(bundle), GateReport(0.0, 0.0, 1.0, Limits(1.0, -1.0)), "a benchmark of the front end")


if __name__ == "__main__":
    setattr(birnn_service.repository.loading, "load_engine", load_idle_engine)  # noqa: B010
    serve()
