"""How much GPU memory an encoder needs, and what batches it can run with how much."""

from collections.abc import Mapping
from dataclasses import dataclass

from birnn_bundle.manifest import Manifest
from birnn_service.engine.engine import Output
from birnn_service.engine.grid import Grid
from birnn_service.engine.stored_graph import StoredGraph

# onnxruntime keeps the weights as they are stored, and a copy in the order that cuDNN wants.
WEIGHT_COPIES = 2
# Memory outside the arena, for each run in flight: the handles of cuBLAS and cuDNN, 32 MiB and more on Hopper.
HANDLE_BYTES = 48 << 20
# Regions of the arena that are too small or too large for what is asked for next.
SLACK = 1.25


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """GPU memory that an encoder needs, in bytes.

    Attributes:
        weights: Of each session: both have a copy.
        handles: Of each session, outside its arena.
        cell: What one step of one row takes in all batches in flight.
        longest: Cells of a single row of the longest sequences.
        largest: Cells of the largest batch that is of use, by output.
    """

    weights: int
    handles: int
    cell: int
    longest: int
    largest: Mapping[Output, int]

    @classmethod
    def of(cls, manifest: Manifest, graph: StoredGraph, slots: int, largest: Mapping[Output, int]) -> "MemoryNeed":
        """What an encoder of this graph needs with `slots` batches in flight."""
        weights = WEIGHT_COPIES * (graph.model.ByteSize() + sum(values.nbytes for values in graph.weights.values()))
        longest = Grid(1, manifest.max_length, 1).steps(manifest.max_length)
        return cls(weights, slots * HANDLE_BYTES, int(SLACK * slots * cell_bytes(manifest)), longest, largest)

    @property
    def least(self) -> int:
        """With which both graphs run a single row of the longest sequences."""
        return self._fixed + self.cell * self.longest * sum(self.largest.values()) // min(self.largest.values())

    @property
    def most(self) -> int:
        """With which both graphs run the largest batches that are of use."""
        return max(self.least, self._fixed + self.cell * sum(self.largest.values()))

    def cells(self, memory: int) -> dict[Output, int]:
        """Cells of the largest batch of each output, where `memory` is all there is; a single row may have more."""
        cells = (memory - self._fixed) // self.cell
        return {output: min(most, cells * most // sum(self.largest.values())) for output, most in self.largest.items()}

    def arena(self, cells: int) -> int:
        """Limit of the arena of a session whose largest batch has `cells`."""
        return self.weights + self.cell * max(cells, self.longest)

    @property
    def _fixed(self) -> int:
        """What does not depend on batches."""
        return len(Output) * (self.weights + self.handles)


def cell_bytes(manifest: Manifest) -> int:
    """GPU memory that one step of one row needs, roughly: embedding, gates of both directions, and outputs, four times.

    The outputs count as the kernel's, reordered, masked for a maximum, and joined.
    """
    widest = 2 * max(manifest.layer_sizes)
    inputs = max(manifest.embedding_size, widest if manifest.layers > 1 else 0)
    return 4 * (inputs + len(manifest.cell.gates) * widest + 4 * widest)
