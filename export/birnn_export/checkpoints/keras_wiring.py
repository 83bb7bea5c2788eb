"""Whether what is taken of a Keras model is what the model itself computes, as far as its configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from birnn_bundle.manifest import Pooling
from birnn_export.checkpoints.keras_graph import INPUT, KerasGraph, Layer
from birnn_export.checkpoints.recurrence import Recurrence
from birnn_export.training.checkpoint import CheckpointError

_POOLINGS: dict[str, Pooling] = {"GlobalMaxPooling1D": "max", "GlobalAveragePooling1D": "mean"}


def in_order(recurrences: Sequence[Recurrence]) -> list[Recurrence] | None:
    """The same as one stack, the lowest first; None where they are none, or where the model does not say."""
    known = [(one, one.layer) for one in recurrences if one.layer is not None]
    if len(known) != len(recurrences):
        return None
    by_output = {layer.output: one for one, layer in known}
    above = {next(iter(layer.inputs)): one for one, layer in known if len(layer.inputs) == 1}
    lowest = [one for one, layer in known if not layer.inputs & by_output.keys()]
    if len(lowest) != 1 or len(by_output) != len(known):
        return None
    order = lowest
    while (layer := order[-1].layer) is not None and layer.output in above and len(order) < len(known):
        order.append(above[layer.output])
    return order if len(set(order)) == len(known) else None


def check_stack(source: str, graph: KerasGraph, stack: Sequence[Recurrence]) -> None:
    """Raise CheckpointError where recurrences do not stand on each other in the model; names what is in between."""
    for lower, upper in pairwise(stack):
        if lower.layer is None or upper.layer is None:
            continue
        if upper.layer.inputs != {lower.layer.output}:
            raise CheckpointError(
                f"{source}: {upper.place} reads {graph.named(upper.layer.inputs)} in the model, and not {lower.place} "
                "alone; they cannot be exported as one stack, but each alone with --prefix and --embedding none"
            )
        if not _returns_sequences(lower.layer):
            raise CheckpointError(
                f"{source}: {lower.place} gives {upper.place} its last output only (return_sequences=False); they "
                "cannot be exported as one stack; export the lower one alone with --prefix"
            )


def check_inputs(source: str, graph: KerasGraph, lowest: Recurrence, named: Layer | None, by_hand: bool) -> list[str]:
    """Whether a recurrence reads an embedding in the model, and the one that is exported with it.

    Args:
        source: For messages.
        graph: Of the model.
        lowest: The recurrence.
        named: The layer of the embedding that was named, if one was and if it is known.
        by_hand: Whether an embedding was named; its own model may then hold more than is known here.

    Returns:
        What is different in the model, a line each.

    Raises CheckpointError where it reads something else and none was named, or another embedding than the named one.
    """
    if lowest.layer is None:
        return []
    embeddings = [graph.embedding(value) for value in lowest.layer.inputs]
    reads = f"{lowest.place} reads {graph.named(lowest.layer.inputs)} in the model"
    if by_hand:
        if named is None or not named.is_embedding or not all(embeddings):
            return [f"{reads}; what is not an embedding is left out"]
        if named not in embeddings:
            raise CheckpointError(f"{source}: {reads}, and not {named}; name that one with --embedding")
        return []
    if len(lowest.layer.inputs) != 1 or not (all(embeddings) or lowest.layer.inputs == {INPUT}):
        raise CheckpointError(
            f"{source}: {reads}, and of what stands below it only an embedding can be exported. --embedding NAME says "
            "which one, and that the rest does not matter; --embedding none exports the recurrence alone, for float "
            "features"
        )
    return []


def pooling_of(graph: KerasGraph, layer: Layer) -> Pooling | None:
    """How the model itself makes one vector of a sequence; None where that is none of ours, or not known."""
    if not _returns_sequences(layer):
        return "final"
    readers = [reader.kind for reader in graph.readers(layer)]
    return _POOLINGS.get(readers[0]) if len(readers) == 1 else None


def masks_zero(graph: KerasGraph, layer: Layer) -> bool:
    """Whether the embedding that a layer reads says that tokens of id 0 do not count."""
    embeddings = [graph.embedding(value) for value in layer.inputs]
    return any(one is not None and bool(one.config.get("mask_zero")) for one in embeddings)


def _returns_sequences(layer: Layer) -> bool:
    """Whether a recurrent layer, or the one that a layer wraps, gives an output a step."""
    config = layer.config
    # A layer of one direction wraps none.
    while "return_sequences" not in config and "layer" in config:
        config = config["layer"]["config"]
    return bool(config.get("return_sequences"))
