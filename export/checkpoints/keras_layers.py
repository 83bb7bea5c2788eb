"""`Bidirectional` layers of Keras, in files of Keras 3 and of Keras 2.

A cell keeps kernel [I, G H], recurrent_kernel [H, G H] and bias, gates side by side: GRU z,r,h; LSTM i,f,c,o. A GRU
with reset_after=True has two biases [2, 3 H], input and hidden; with reset_after=False (linear_before_reset = 0) one
[3 H].
(keras/src/layers/rnn/gru.py, lstm.py, simple_rnn.py; activations tanh and sigmoid, as everywhere but in Keras 1.)

| | a parameter's path |
|---|---|
| Keras 3 | layers/bidirectional/forward_layer/cell/vars/0 |
| Keras 2 | model_weights/bidirectional/bidirectional/forward_gru/gru_cell_1/kernel:0 |
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bundle.manifest import Nonlinearity
from export.checkpoints.recurrence import Array, Direction, Family, Flawed, Found, Recurrence, family_of, stacked
from export.checkpoints.stored_weights import StoredWeights, Tensors

PARAMETERS = ("kernel", "recurrent_kernel", "bias")
KERAS_3 = re.compile(r"(?P<place>.+?)(?:/(?P<way>forward|backward)_layer)?/cell/vars/(?P<number>[012])")
KERAS_2 = re.compile(
    r"(?P<place>.+?)/(?:(?P<way>forward|backward)_)?(?P<layer>[^/]+)(?:/[^/]*cell[^/]*)?"
    r"/(?P<parameter>kernel|recurrent_kernel|bias)(?::0)?"
)
# For each gate of torch.nn, in its order, the position of the same gate in Keras.
ORDER: dict[Family, tuple[int, ...]] = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 1, 2, 3)}
CLASSES: dict[str, Family] = {"SimpleRNN": "rnn", "GRU": "gru", "LSTM": "lstm"}

# One direction: "" for a layer that is not bidirectional, "forward" or "backward"; and its parameters by name.
Sides = dict[str, dict[str, str]]


def find_keras_layers(stored: StoredWeights) -> list[Found]:
    """Every recurrent layer of a Keras file, in the order of its name, whether it can be exported or not."""
    layers: dict[str, Sides] = defaultdict(lambda: defaultdict(dict))
    for name in stored.tensors:
        if match := KERAS_3.fullmatch(name):
            layers[match["place"]][match["way"] or ""][PARAMETERS[int(match["number"])]] = name
        elif match := KERAS_2.fullmatch(name):
            place = match["place"] if match["way"] else f"{match['place']}/{match['layer']}"
            layers[place][match["way"] or ""][match["parameter"]] = name
    configs = {str(layer["config"].get("name")): layer for layer in _layers(stored.keras_config)}
    found = []
    # Dense and Conv layers have kernels too, but no recurrent ones.
    recurrent = {
        place: sides for place, sides in layers.items() if any("recurrent_kernel" in side for side in sides.values())
    }
    for place, sides in sorted(recurrent.items(), key=lambda item: _natural(item[0])):
        name = stored.keras_names.get(place, place.rpartition("/")[2])
        found.append(_layer(place, name, sides, configs.get(name), stored.tensors))
    return found


def _layers(config: Any) -> Iterator[Mapping[str, Any]]:
    """Every layer of a configuration, those of models inside it included."""
    inner = config.get("config") if isinstance(config, Mapping) else None
    for layer in inner.get("layers", ()) if isinstance(inner, Mapping) else ():
        if isinstance(layer, Mapping) and isinstance(layer.get("config"), Mapping):
            yield layer
            yield from _layers(layer)


def _natural(place: str) -> list[tuple[int, str]]:
    """Sorts bidirectional_10 behind bidirectional_9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", place)]


def _layer(place: str, name: str, sides: Sides, config: Mapping[str, Any] | None, tensors: Tensors) -> Found:
    if "" in sides:
        return Flawed(place, "runs in one direction only; wrap it in keras.layers.Bidirectional and train again")
    if missing := [way for way in ("forward", "backward") if len(sides.get(way, {}).keys() - {"bias"}) < 2]:
        return Flawed(place, f"lacks the kernels of its {' and '.join(missing)} layer")
    try:
        kernels = tensors[sides["forward"]["recurrent_kernel"]]
        family = family_of(kernels, gates_last=True)
        nonlinearity, reset_after = _settings(config, family)
        pair = (_direction(sides["forward"], family, tensors), _direction(sides["backward"], family, tensors))
        layers = stacked([pair], family)
    except ValueError as error:
        return Flawed(place, str(error))
    if family == "gru" and "bias" in sides["forward"]:
        reset_after = tensors[sides["forward"]["bias"]].ndim == 2
    return Recurrence(
        place,
        family,
        layers,
        frozenset(tensor for side in sides.values() for tensor in side.values()),
        nonlinearity=nonlinearity,
        linear_before_reset=reset_after if family == "gru" else True,
        name=name if name != place.rpartition("/")[2] else "",
        chained=True,
    )


def _settings(config: Mapping[str, Any] | None, family: Family) -> tuple[Nonlinearity | None, bool | None]:
    """Nonlinearity and reset_after of a layer; None for what is not known.

    Raises:
        ValueError: The configuration asks for what ONNX's operators, or this service, do not compute.
    """
    if config is None:
        return (None if family == "rnn" else "tanh"), None
    merge_mode = config["config"].get("merge_mode", "concat")
    if merge_mode != "concat":
        raise ValueError(
            f"merges its directions by {merge_mode!r}; this service concatenates them (merge_mode='concat')"
        )
    wrapped = config["config"].get("layer", {})
    inner = wrapped.get("config", {})
    if CLASSES.get(wrapped.get("class_name")) != family:
        raise ValueError(f"is a {wrapped.get('class_name')}, and its weights are of a {family.upper()}")
    if inner.get("go_backwards"):
        raise ValueError("has a forward layer with go_backwards=True")
    if inner.get("recurrent_activation", "sigmoid") != "sigmoid":
        raise ValueError(f"has the recurrent activation {inner['recurrent_activation']!r}; only 'sigmoid' is served")
    activation = inner.get("activation", "tanh")
    allowed = ("tanh", "relu") if family == "rnn" else ("tanh",)
    if activation not in allowed:
        raise ValueError(f"has the activation {activation!r}; served are {', '.join(allowed)} for a {family.upper()}")
    return activation, bool(inner["reset_after"]) if "reset_after" in inner else None


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
    blocks = np.split(values.T, len(ORDER[family]))
    return np.concatenate([blocks[position] for position in ORDER[family]])
