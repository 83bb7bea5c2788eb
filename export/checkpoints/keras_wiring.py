"""Whether what is taken of a Keras model is what the model itself computes, as far as its configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from bundle.manifest import Pooling
from export.checkpoints.keras_graph import INPUT, KerasGraph, Layer
from export.checkpoints.recurrence import Recurrence
from export.training.checkpoint import CheckpointError

_POOLINGS: dict[str, Pooling] = {"GlobalMaxPooling1D": "max", "GlobalAveragePooling1D": "mean"}


def in_order(graph: KerasGraph, recurrences: Sequence[Recurrence]) -> list[Recurrence] | None:
    """The same as one stack, the lowest first; None where they are none, or where the model does not say."""
    by_path = {one.layer.path: one for one in recurrences if one.layer is not None}
    if len(by_path) != len(recurrences):
        return None
    below = {path: graph.sources(graph.layers[path]) for path in by_path}
    above = {
        source: path for path, sources in below.items() if len(sources) == 1 for source in sources & by_path.keys()
    }
    lowest = [path for path, sources in below.items() if not sources & by_path.keys()]
    if len(lowest) != 1:
        return None
    order = lowest
    while (path := above.get(order[-1])) is not None and len(order) < len(by_path):
        order.append(path)
    return [by_path[path] for path in order] if len(set(order)) == len(by_path) else None


def check_wiring(source: str, graph: KerasGraph, stack: Sequence[Recurrence], *, with_embedding: bool) -> None:
    """Refuse a stack that the model does not hold like this.

    Args:
        source: For messages.
        graph: Of the model.
        stack: Recurrences that are to be exported as one, the lowest first.
        with_embedding: Whether an embedding of the model is exported with it.

    Raises CheckpointError, which names what stands in between.
    """
    for lower, upper in pairwise(stack):
        if lower.layer is None or upper.layer is None:
            continue
        if (sources := graph.sources(upper.layer)) != {lower.layer.path}:
            raise CheckpointError(
                f"{source}: {upper.place} does not read {lower.place} in the model, but {graph.named(sources)}; they "
                "cannot be exported as one stack, but each alone with --prefix and --embedding none"
            )
        if not _returns_sequences(lower.layer):
            raise CheckpointError(
                f"{source}: {lower.place} gives {upper.place} its last output only (return_sequences=False); they "
                "cannot be exported as one stack"
            )
    lowest = stack[0]
    if not with_embedding or lowest.layer is None:
        return
    sources = graph.sources(lowest.layer)
    if not all(path == INPUT or graph.is_a(path, "Embedding") for path in sources) or len(sources) != 1:
        raise CheckpointError(
            f"{source}: {lowest.place} reads {graph.named(sources)} in the model, and of what stands below it only an "
            "embedding can be exported; --embedding none exports the recurrence alone, for float features"
        )


def pooling_of(graph: KerasGraph, layer: Layer) -> Pooling | None:
    """How the model itself makes one vector of a sequence; None where that is none of ours, or not known."""
    if not _returns_sequences(layer):
        return "final"
    readers = [reader.kind for reader in graph.readers(layer.path)]
    return _POOLINGS.get(readers[0]) if len(readers) == 1 else None


def masks_zero(graph: KerasGraph, layer: Layer) -> bool:
    """Whether the embedding that a layer reads says that tokens of id 0 do not count."""
    embeddings = [graph.layers[path] for path in graph.sources(layer) if graph.is_a(path, "Embedding")]
    return any(bool(one.config.get("mask_zero")) for one in embeddings)


def _returns_sequences(layer: Layer) -> bool:
    """Whether a Bidirectional, or the one that a layer wraps, gives an output a step."""
    config = layer.config
    while isinstance(wrapped := config.get("layer"), dict) and isinstance(wrapped.get("config"), dict):
        config = wrapped["config"]
    return bool(config.get("return_sequences"))
