"""`Bidirectional` layers of Keras, in files of Keras 3 and of Keras 2.

A cell keeps kernel [I, G H], recurrent_kernel [H, G H] and bias, gates side by side: GRU z,r,h; LSTM i,f,c,o. A GRU
with reset_after=True has two biases [2, 3 H], input and hidden; with reset_after=False (linear_before_reset = 0) one
[3 H].
(keras/src/layers/rnn/gru.py, lstm.py, simple_rnn.py.) Its hard_sigmoid has changed: see `birnn_bundle.cells`.

| | a parameter's path |
|---|---|
| Keras 3 | layers/bidirectional/forward_layer/cell/vars/0 |
| Keras 2 | model_weights/bidirectional/bidirectional/forward_gru/gru_cell_1/kernel:0 |
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from birnn_bundle.cells import Family, GateActivation, Nonlinearity, first_of
from birnn_export.checkpoints.keras_graph import KerasGraph, Layer
from birnn_export.checkpoints.recurrence import Array, Direction, Flawed, Found, Recurrence, family_of, stacked
from birnn_export.checkpoints.stored_weights import StoredWeights, Tensors

PARAMETERS = ("kernel", "recurrent_kernel", "bias")
KERAS_3 = re.compile(r"(?P<place>.+?)(?:/(?P<way>forward|backward)_layer)?/cell/vars/(?P<number>[012])")
KERAS_2 = re.compile(
    r"(?P<place>.+?)/(?:(?P<way>forward|backward)_)?(?P<layer>[^/]+)(?:/[^/]*cell[^/]*)?"
    r"/(?P<parameter>kernel|recurrent_kernel|bias)(?::0)?"
)

ASSUMED = (
    "nothing in the file says how its layer is configured: assumed are sigmoid gates, tanh (of an RNN what you say) "
    "and directions that are concatenated"
)

# One direction: "" for a layer that is not bidirectional, "forward" or "backward"; and its parameters by name.
Sides = dict[str, dict[str, str]]


def find_keras_layers(stored: StoredWeights, graph: KerasGraph) -> list[Found]:
    """Every recurrent layer of a Keras file, in the order of its name, whether it can be exported or not."""
    layers: dict[str, Sides] = defaultdict(lambda: defaultdict(dict))
    for name in stored.tensors:
        if match := KERAS_3.fullmatch(name):
            layers[match["place"]][match["way"] or ""][PARAMETERS[int(match["number"])]] = name
        elif match := KERAS_2.fullmatch(name):
            place = match["place"] if match["way"] else f"{match['place']}/{match['layer']}"
            layers[place][match["way"] or ""][match["parameter"]] = name
    found = []
    # Dense and Conv layers have kernels too, but no recurrent ones.
    recurrent = {
        place: sides for place, sides in layers.items() if any("recurrent_kernel" in side for side in sides.values())
    }
    for place, sides in sorted(recurrent.items(), key=lambda item: _natural(item[0])):
        name = stored.keras_names.get(place, place.rpartition("/")[2])
        found.append(_layer(place, name, sides, graph.find(place, stored.keras_names), stored))
    return found


def _natural(place: str) -> list[tuple[int, str]]:
    """Sorts bidirectional_10 behind bidirectional_9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", place)]


def _layer(place: str, name: str, sides: Sides, layer: Layer | None, stored: StoredWeights) -> Found:
    tensors = stored.tensors
    tensor_names = frozenset(tensor for side in sides.values() for tensor in side.values())
    if "" in sides:
        problem = "runs in one direction only; wrap it in keras.layers.Bidirectional and train again"
        return Flawed(place, problem, tensor_names)
    if missing := [way for way in ("forward", "backward") if len(sides.get(way, {}).keys() - {"bias"}) < 2]:
        return Flawed(place, f"lacks the kernels of its {' and '.join(missing)} layer", tensor_names)
    config = _bidirectional(layer)
    try:
        kernels = tensors[sides["forward"]["recurrent_kernel"]]
        family = family_of(kernels, gates_last=True)
        two_biases = {way: tensors[names["bias"]].ndim == 2 for way, names in sides.items() if "bias" in names}
        nonlinearity, gate_activation, reset_after = _settings(config, family, two_biases, stored.keras_version)
        pair = (_direction(sides["forward"], family, tensors), _direction(sides["backward"], family, tensors))
        layers = stacked([pair], family)
    except ValueError as error:
        return Flawed(place, str(error), tensor_names)
    return Recurrence(
        place,
        family,
        layers,
        tensor_names,
        nonlinearity=nonlinearity,
        gate_activation=gate_activation,
        linear_before_reset=reset_after if family == "gru" else True,
        name=name if name != place.rpartition("/")[2] else "",
        layer=layer if config is not None else None,
        notes=() if config is not None else (ASSUMED,),
    )


def _bidirectional(layer: Layer | None) -> Mapping[str, Any] | None:
    """The configuration of the Bidirectional that a layer is or wraps; None where it does not say."""
    config: Any = layer.config if layer is not None else None
    # Whatever its class: one made of Bidirectional has a name of its own.
    while isinstance(config, Mapping) and "merge_mode" not in config:
        wrapped = config.get("layer")
        config = wrapped.get("config") if isinstance(wrapped, Mapping) else None
    return config if isinstance(config, Mapping) else None


def _settings(
    config: Mapping[str, Any] | None, family: Family, two_biases: Mapping[str, bool], version: str
) -> tuple[Nonlinearity | None, GateActivation, bool | None]:
    """Nonlinearity, activation of the gates and reset_after of a layer; None for what is not known.

    Args:
        config: Of the Bidirectional, None where it is not known.
        family: What its weights are.
        two_biases: For each direction that has biases, whether they are two, as those of a GRU with reset_after are.
        version: Of the Keras that wrote the file; empty where it is not known.

    Raises:
        ValueError: The configuration asks for what ONNX's operators, or this service, do not compute.
    """
    nonlinearities: set[Nonlinearity | None] = {None if family == "rnn" else "tanh"}
    gates: set[GateActivation] = {"sigmoid"}
    resets = dict(two_biases) if family == "gru" else {}
    if config is not None:
        merge_mode = config.get("merge_mode", "concat")
        if merge_mode != "concat":
            raise ValueError(
                f"merges its directions by {merge_mode!r}; this service concatenates them (merge_mode='concat')"
            )
        # Without a backward layer of its own it has a copy of the forward one.
        given = {"forward": config.get("layer"), "backward": config.get("backward_layer") or config.get("layer")}
        sides = {way: _side(layer, family) for way, layer in given.items()}
        own = config.get("backward_layer") is not None
        for way, backwards in (("forward", False), ("backward", True)):
            if bool(sides[way].get("go_backwards")) != (backwards and own):
                raise ValueError(f"has a {way} layer with go_backwards={not backwards}")
        nonlinearities = {side.get("activation", "tanh") for side in sides.values()}
        gates = {_gate_activation(side, version) for side in sides.values()}
        resets = {way: bool(side["reset_after"]) for way, side in sides.items() if "reset_after" in side} | resets
    if len(nonlinearities) > 1:
        raise ValueError(f"has other activations forward than backward: {', '.join(sorted(map(str, nonlinearities)))}")
    if len(gates) > 1:
        raise ValueError(f"has other recurrent activations forward than backward: {', '.join(sorted(gates))}")
    if len(set(resets.values())) > 1:
        raise ValueError("has reset_after=True in one direction and False in the other")
    return nonlinearities.pop(), gates.pop(), next(iter(resets.values()), None)


def _side(layer: Any, family: Family) -> Mapping[str, Any]:
    """The configuration of one direction. Raises ValueError where it is none that is served."""
    kind, config = (layer.get("class_name"), layer.get("config")) if isinstance(layer, Mapping) else (None, None)
    if kind != first_of(family).keras or not isinstance(config, Mapping):
        raise ValueError(f"is a {kind}, and its weights are of a {family.upper()}")
    activation = config.get("activation", "tanh")
    if activation not in get_args(Nonlinearity):
        raise ValueError(f"has the activation {activation!r}; served are {' and '.join(get_args(Nonlinearity))}")
    return config


def _gate_activation(config: Mapping[str, Any], version: str) -> GateActivation:
    """The activation of a layer's gates. Raises ValueError where it is none that is served, or not known."""
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
            raise ValueError(f"has the recurrent activation {other!r}; served are sigmoid and hard_sigmoid")


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
