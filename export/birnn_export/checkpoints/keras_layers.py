"""`Bidirectional` layers of Keras, in files of Keras 3 and of Keras 2: of GRU and the like, or of RNN and cells.

A cell keeps kernel [I, G H], recurrent_kernel [H, G H] and bias, gates side by side: GRU z,r,h; LSTM i,f,c,o. A GRU
with reset_after=True has two biases [2, 3 H], input and hidden; with reset_after=False (linear_before_reset = 0) one
[3 H].
(keras/src/layers/rnn/gru.py, lstm.py, simple_rnn.py; activations are tanh and sigmoid unless the configuration says
otherwise.)

| | a parameter's path |
|---|---|
| Keras 3 | layers/bidirectional/forward_layer/cell/vars/0, or .../cell/cells/gru_cell_1/vars/0 |
| Keras 2 | model_weights/bidirectional/bidirectional/forward_gru/gru_cell_1/kernel:0, .../cells/gru_cell_1/kernel:0 |
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from birnn_bundle.cells import Family, GateActivation, Nonlinearity, first_of
from birnn_bundle.numerals import is_number
from birnn_export.checkpoints.keras_graph import KerasGraph, Layer
from birnn_export.checkpoints.pairing import OneWay, side_by_side
from birnn_export.checkpoints.recurrence import Array, Direction, Flawed, Found, Recurrence, family_of, stacked
from birnn_export.checkpoints.stored_weights import StoredWeights, Tensors

PARAMETERS = ("kernel", "recurrent_kernel", "bias")
KERAS_3 = re.compile(
    r"(?P<place>.+?)(?:/(?P<way>forward|backward)_layer)?/cell(?:/cells/(?P<cell>[^/]+))?/vars/(?P<number>[012])"
)
KERAS_2 = re.compile(
    r"(?P<place>.+?)/(?:(?P<way>forward|backward)_)?(?P<layer>[^/]+?)(?:/[^/]*cells[^/]*)?(?:/(?P<cell>[^/]*cell[^/]*))?"
    r"/(?P<parameter>kernel|recurrent_kernel|bias)(?::0)?"
)

ASSUMED = (
    "nothing in the file says how its layer is configured: assumed are sigmoid gates, tanh (of an RNN what you say) "
    "and directions that are concatenated"
)

# The parameters of a cell: their names in it, and in the file.
Cell = dict[str, str]
# Directions, "" for a layer that is not bidirectional, else "forward" and "backward"; and the cells of each by name.
Sides = dict[str, dict[str, Cell]]


def find_keras_layers(stored: StoredWeights, graph: KerasGraph) -> list[Found | OneWay]:
    """Every recurrent layer of a Keras file, in the order of its name, whether it can be exported or not."""
    layers: dict[str, Sides] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for name in stored.tensors:
        if match := KERAS_3.fullmatch(name):
            cell = layers[match["place"]][match["way"] or ""][match["cell"] or ""]
            cell[PARAMETERS[int(match["number"])]] = name
        elif match := KERAS_2.fullmatch(name):
            place = match["place"] if match["way"] else f"{match['place']}/{match['layer']}"
            layers[place][match["way"] or ""][match["cell"] or ""][match["parameter"]] = name
    found = []
    # Dense and Conv layers have kernels too, but no recurrent ones.
    recurrent = {
        place: sides
        for place, sides in layers.items()
        if any("recurrent_kernel" in cell for cells in sides.values() for cell in cells.values())
    }
    for place, sides in sorted(recurrent.items(), key=lambda item: _natural(item[0])):
        name = stored.keras_names.get(place, place.rpartition("/")[2])
        found.append(_layer(place, name, sides, graph.find(place, stored.keras_names), stored))
    return found


def _natural(place: str) -> list[tuple[int, str]]:
    """Sorts bidirectional_10 behind bidirectional_9."""
    return [(int(part), "") if is_number(part) else (-1, part) for part in re.split(r"([0-9]+)", place)]


def _layer(place: str, name: str, sides: Sides, layer: Layer | None, stored: StoredWeights) -> Found | OneWay:
    tensor_names = frozenset(tensor for cells in sides.values() for cell in cells.values() for tensor in cell.values())
    try:
        if "" in sides:
            return _one_way(place, name, sides, layer, stored, tensor_names)
        return _recurrence(place, name, sides, layer, stored, tensor_names)
    except ValueError as error:
        return Flawed(place, str(error), tensor_names)


def _recurrence(
    place: str, name: str, sides: Sides, layer: Layer | None, stored: StoredWeights, tensor_names: frozenset[str]
) -> Recurrence:
    """The recurrence of a layer. Raises ValueError that says what is wrong with it and what to do."""
    tensors = stored.tensors
    config = _bidirectional(layer)
    cells = {way: _in_order(sides.get(way, {}), way, config) for way in ("forward", "backward")}
    if missing := [
        way for way, own in cells.items() if not own or any(len(cell.keys() - {"bias"}) < 2 for cell in own)
    ]:
        raise ValueError(f"lacks the kernels of its {' and '.join(missing)} layer; save the whole model again")
    families = {family_of(tensors[cell["recurrent_kernel"]], gates_last=True) for own in cells.values() for cell in own}
    if len(families) > 1:
        raise ValueError(
            f"is made of cells of different kinds ({', '.join(sorted(families))}), which are not served; train with "
            "cells of one kind"
        )
    family = families.pop()
    two_biases = [tensors[cell["bias"]].ndim == 2 if "bias" in cell else None for own in cells.values() for cell in own]
    nonlinearity, gate_activation, reset_after = _settings(config, family, two_biases, stored.keras_version)
    forward, backward = ([_direction(cell, family, tensors) for cell in own] for own in cells.values())
    return Recurrence(
        place,
        family,
        stacked(side_by_side(forward, backward), family),
        tensor_names,
        nonlinearity=nonlinearity,
        gate_activation=gate_activation,
        linear_before_reset=reset_after if family == "gru" else True,
        name=name if name != place.rpartition("/")[2] else "",
        layer=layer if config is not None else None,
        notes=() if config is not None else (ASSUMED,),
    )


def _one_way(
    place: str, name: str, sides: Sides, layer: Layer | None, stored: StoredWeights, tensor_names: frozenset[str]
) -> OneWay:
    """A layer without a Bidirectional around it. Raises ValueError that says what is wrong with it and what to do."""
    tensors = stored.tensors
    training = "wrap it in keras.layers.Bidirectional and train again"
    cells = [sides[""][name] for name in sorted(sides[""], key=_natural)]
    if len(sides) > 1 or len(cells) > 1 or len(cells[0].keys() - {"bias"}) < 2:
        raise ValueError(f"runs in one direction only, and only bidirectional encoders are served; {training}")
    family = family_of(tensors[cells[0]["recurrent_kernel"]], gates_last=True)
    two_biases = tensors[cells[0]["bias"]].ndim == 2 if "bias" in cells[0] else None
    steps = (
        []
        if layer is None
        else [_step(*one, family) for one in _cells({"class_name": layer.kind, "config": layer.config})]
    )
    nonlinearity, gate_activation, reset_after = _agreed(steps, family, [two_biases], stored.keras_version)
    return OneWay(
        place,
        family,
        (_direction(cells[0], family, tensors),),
        tensor_names,
        nonlinearity=nonlinearity,
        gate_activation=gate_activation,
        linear_before_reset=reset_after if family == "gru" else True,
        name=name,
        layer=layer if steps else None,
        backwards=bool(layer.config.get("go_backwards")) if layer is not None and steps else None,
        training=training,
    )


def _in_order(cells: Mapping[str, Cell], way: str, config: Mapping[str, Any] | None) -> list[Cell]:
    """The cells of a direction, the lowest first: as the configuration has them, else as they are numbered."""
    numbered = sorted(cells, key=_natural)
    given = None if config is None else config.get(f"{way}_layer") or config.get("layer")
    named = [str(one.get("name")) for _, one in _cells(given)]
    return [cells[name] for name in (named if set(named) == cells.keys() else numbered)]


def _cells(layer: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Class and configuration of what a layer applies at each step: of a GRU its own, of an RNN those of its cells."""
    kind, config = (layer.get("class_name"), layer.get("config")) if isinstance(layer, Mapping) else (None, None)
    if not isinstance(config, Mapping):
        return []
    if isinstance(cells := config.get("cells"), list):
        return [one for cell in cells for one in _cells(cell)]
    return _cells(config["cell"]) if "cell" in config else [(str(kind), config)]


def _bidirectional(layer: Layer | None) -> Mapping[str, Any] | None:
    """The configuration of the Bidirectional that a layer is or wraps; None where it does not say."""
    config: Any = layer.config if layer is not None else None
    # Whatever its class: one made of Bidirectional has a name of its own.
    while isinstance(config, Mapping) and "merge_mode" not in config:
        wrapped = config.get("layer")
        config = wrapped.get("config") if isinstance(wrapped, Mapping) else None
    return config if isinstance(config, Mapping) and _cells(config.get("layer")) else None


def _settings(
    config: Mapping[str, Any] | None, family: Family, two_biases: Sequence[bool | None], version: str
) -> tuple[Nonlinearity | None, GateActivation, bool | None]:
    """Nonlinearity, activation of the gates and reset_after of a layer; None for what is not known.

    Args:
        config: Of the Bidirectional, None where it is not known.
        family: What its weights are.
        two_biases: For each cell, whether its biases are two, as those of a GRU with reset_after are; None without.
        version: Of the Keras that wrote the file; empty where it is not known.

    Raises:
        ValueError: The configuration asks for what ONNX's operators, or this service, do not compute.
    """
    steps: list[Mapping[str, Any]] = []
    if config is not None:
        merge_mode = config.get("merge_mode", "concat")
        if merge_mode != "concat":
            raise ValueError(
                f"merges its directions by {merge_mode!r}; this service concatenates them (merge_mode='concat')"
            )
        # Without a backward layer of its own it has a copy of the forward one.
        given = {"forward": config.get("layer"), "backward": config.get("backward_layer") or config.get("layer")}
        own = config.get("backward_layer") is not None
        for way, backwards in (("forward", False), ("backward", True)):
            if bool(_config_of(given[way]).get("go_backwards")) != (backwards and own):
                raise ValueError(
                    f"has a {way} layer with go_backwards={not backwards}; train with go_backwards=True in the "
                    "backward layer alone"
                )
        steps = [_step(kind, cell, family) for layer in given.values() for kind, cell in _cells(layer)]
    return _agreed(steps, family, two_biases, version)


def _agreed(
    steps: Sequence[Mapping[str, Any]], family: Family, two_biases: Sequence[bool | None], version: str
) -> tuple[Nonlinearity | None, GateActivation, bool | None]:
    """What all cells of a layer say, or what is assumed where none is known. Raises ValueError where they differ."""
    nonlinearities: set[Nonlinearity | None] = {step.get("activation", "tanh") for step in steps}
    if not steps:
        nonlinearities = {None if family == "rnn" else "tanh"}
    gates: set[GateActivation] = {_gate_activation(step, version) for step in steps} or {"sigmoid"}
    resets = list(two_biases) if family == "gru" else []
    if len(steps) == len(resets):
        # What the weights show is certain.
        resets = [
            step.get("reset_after") if known is None else known for known, step in zip(resets, steps, strict=True)
        ]
    if len(nonlinearities) > 1:
        raise ValueError(
            f"has cells of different activations, which are not served: {', '.join(sorted(map(str, nonlinearities)))}; "
            "train with the same in both directions"
        )
    if len(gates) > 1:
        raise ValueError(
            f"has cells of different recurrent activations, which are not served: {', '.join(sorted(gates))}; train "
            "with the same in both directions"
        )
    if len(known_resets := {reset for reset in resets if reset is not None}) > 1:
        raise ValueError(
            "has reset_after=True in one cell and False in another, which is not served; train with the same in both "
            "directions"
        )
    return nonlinearities.pop(), gates.pop(), next(iter(known_resets), None)


def _config_of(layer: Any) -> Mapping[str, Any]:
    config = layer.get("config") if isinstance(layer, Mapping) else None
    return config if isinstance(config, Mapping) else {}


def _step(kind: str, config: Mapping[str, Any], family: Family) -> Mapping[str, Any]:
    """The configuration of a cell, or of a layer of one. Raises ValueError where it is none that is served."""
    if kind.startswith("CuDNN"):
        raise ValueError(
            f"is a {kind}, whose weights lie in another way; load them with Keras 2 into a model of LSTM or "
            "GRU(reset_after=True), which converts them, and save that"
        )
    if kind.removesuffix("Cell") != first_of(family).keras:
        raise ValueError(
            f"is a {kind}, and its weights are of a {family.upper()}; a class of the author's own may compute "
            "anything, so train with the GRU, LSTM or SimpleRNN of Keras"
        )
    activation = config.get("activation", "tanh")
    if activation not in get_args(Nonlinearity):
        raise ValueError(
            f"has the activation {activation!r}; served are {' and '.join(get_args(Nonlinearity))}: train with one"
        )
    return config


def _gate_activation(config: Mapping[str, Any], version: str) -> GateActivation:
    """The activation of a cell's gates. Raises ValueError where it is none that is served, or not known."""
    match config.get("recurrent_activation", "sigmoid"):
        case "sigmoid":
            return "sigmoid"
        case "hard_sigmoid" if version:
            return "hard_sigmoid_keras2" if version.startswith(("1.", "2.")) else "hard_sigmoid"
        case "hard_sigmoid":
            raise ValueError(
                "has the recurrent activation 'hard_sigmoid', which is another function in Keras 3 than before, and "
                "nothing in the file says which Keras wrote it; load it there and save the whole model as .keras"
            )
        case other:
            raise ValueError(
                f"has the recurrent activation {other!r}; served are sigmoid and hard_sigmoid: train with one"
            )


def _direction(names: Mapping[str, str], family: Family, tensors: Tensors) -> Direction:
    """One direction in the layout of torch.nn. Raises ValueError for parameters that do not fit."""
    kernel, recurrent = tensors[names["kernel"]], tensors[names["recurrent_kernel"]]
    if kernel.ndim != 2 or recurrent.ndim != 2 or kernel.shape[1] != recurrent.shape[1]:
        raise ValueError(f"has kernels of shapes {list(kernel.shape)} and {list(recurrent.shape)}")
    W, R = _reordered(kernel, family), _reordered(recurrent, family)
    if "bias" not in names:
        return Direction(W, R)
    bias = tensors[names["bias"]]
    if bias.ndim == 2 and len(bias) == 2:
        return Direction(W, R, _reordered(bias[:1], family)[:, 0], _reordered(bias[1:], family)[:, 0])
    if bias.ndim != 1 or len(bias) != kernel.shape[1]:
        raise ValueError(f"has a bias of shape {list(bias.shape)} beside kernels {list(kernel.shape)}")
    return Direction(W, R, _reordered(bias[None], family)[:, 0])


def _reordered(values: Array, family: Family) -> Array:
    """[n, G H] with the gates of Keras to [G H, n] with those of torch.nn."""
    order = first_of(family).torch_from_keras
    blocks = np.split(values.T, len(order))
    return np.concatenate([blocks[position] for position in order])
