"""How the layers of a Keras model are wired, from the configuration in its file.

Weights do not show what stands between an embedding and a recurrence, or between two recurrences; a configuration does.
Keras 3 writes `inbound_nodes` as tensors with a `keras_history`, Keras 2 as lists of [layer, call, output, arguments];
a Sequential is a list of layers, each of which reads the one before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Names of the models around a layer, and its own.
Path = tuple[str, ...]

# An output of a layer, by number: what layers read. Those that change nothing are left out on the way.
Value = tuple[Path, int]
Values = frozenset[Value]
# What a call gives, by number of the output.
Outputs = Callable[[int], Values]

INPUT: Value = ((), 0)
"""What a layer reads that reads the model's own input."""

# Layers that change nothing when a model is used, and those that only say which steps count.
_TRANSPARENT = (
    *("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    *("ActivityRegularization", "Identity", "Masking"),
)

# Under what models keep their layers in files of Keras 3.
_CONTAINERS = frozenset({"layers", "_layer_checkpoint_dependencies"})


@dataclass(eq=False)
class Layer:
    """One layer of a model.

    Attributes:
        path: Where it stands.
        group: Where its weights stand in a file of Keras 3 before 3.6, which does not keep names.
        kind: Its class.
        config: Its configuration.
        shown: Where its outputs are to be had: of a layer in a wrapper, the wrapper.
        inputs: What it reads, over all calls.
    """

    path: Path
    group: Path
    kind: str
    config: Mapping[str, Any]
    shown: Path
    inputs: set[Value] = field(default_factory=set)

    @property
    def is_embedding(self) -> bool:
        """Whether it is an Embedding, or of a class made of one."""
        return {"input_dim", "output_dim", "embeddings_initializer"} <= self.config.keys()

    @property
    def output(self) -> Value:
        """Its first output."""
        return self.shown, 0

    def __str__(self) -> str:
        return f"{self.path[-1]} ({self.kind})"


class KerasGraph:
    """The layers of a model and what each of them reads; empty for a model that does not say."""

    def __init__(self, config: Any) -> None:
        """Read the configuration of a model, that of `.keras` files or the `model_config` of HDF5 files."""
        self.layers: dict[Path, Layer] = {}
        self.masks = False
        """Whether a Masking layer is among them."""
        try:
            if isinstance(config, Mapping) and _layers_of(config):
                self._read_model(config, (), (), [frozenset({INPUT})])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError):
            # Written by something else than Keras: better unknown than half known.
            self.layers = {}

    def find(self, place: str, names: Mapping[str, str]) -> Layer | None:
        """The layer whose weights, or those of what it wraps, stand at `place` in the file; None if it is not known.

        Args:
            place: A group of the file.
            names: Names of layers by group, where the file says them (Keras from 3.6).
        """
        parts = place.split("/")
        prefixes = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        if named := tuple(names[prefix] for prefix in prefixes if prefix in names):
            return _longest(named, self.layers)
        if parts[0] in _CONTAINERS:
            groups = tuple(part for part in parts if part not in _CONTAINERS)
            return _longest(groups, {layer.group: layer for layer in self.layers.values()})
        # Groups of Keras 2 are called as the layers, mostly below those of the models around them.
        nearness = {
            layer: (-parts[::-1].index(layer.path[-1]), len(set(layer.path) & set(parts)))
            for layer in self.layers.values()
            if layer.path[-1] in parts
        }
        best = max(nearness.values(), default=None)
        nearest = [layer for layer, near in nearness.items() if near == best]
        return nearest[0] if len(nearest) == 1 else None

    def readers(self, layer: Layer) -> list[Layer]:
        """The layers that read the first output of one."""
        return [one for one in self.layers.values() if layer.output in one.inputs and one.shown == one.path]

    def embedding(self, value: Value) -> Layer | None:
        """The embedding that gives a value, if one does."""
        layer = self.layers.get(value[0])
        return layer if layer is not None and layer.is_embedding else None

    def named(self, values: Iterable[Value]) -> str:
        """Where values come from, for a message."""
        names = {
            "the model's input" if value == INPUT else str(self.layers.get(value[0], value[0][-1])) for value in values
        }
        states = any(output for _, output in values)
        return ", ".join(sorted(names)) + (" and its states" if states else "")

    def _read_model(
        self, model: Mapping[str, Any], path: Path, group: Path, inputs: Sequence[Values]
    ) -> Sequence[Values]:
        """Read the layers of a model that stands at `path` and reads `inputs`; gives its outputs."""
        layers = _layers_of(model)
        groups = [(*group, one) for one in _groups(layers)]
        if not any("inbound_nodes" in layer for layer in layers):
            for layer, own in zip(layers, groups, strict=True):
                inputs = [self._read_call(layer, path, own, inputs)(0)]
            return inputs
        by_name = {_name_of(layer): (layer, own) for layer, own in zip(layers, groups, strict=True)}
        first = [name for name, _, _ in _references(model["config"].get("input_layers"))]
        done: dict[tuple[str, int], Outputs] = {}

        def outputs_of(name: str, call: int) -> Outputs:
            if (name, call) not in done:
                # What a layer reads that reads itself.
                done[name, call] = lambda output: frozenset({((*path, name), output)})
                layer, own = by_name[name]
                if layer.get("class_name") == "InputLayer":
                    given = inputs[first.index(name)] if name in first and len(first) == len(inputs) else _all(inputs)
                    done[name, call] = lambda output: given
                else:
                    nodes = layer["inbound_nodes"]
                    references = list(_references(nodes[call])) if call < len(nodes) else []
                    read = [outputs_of(below, earlier)(output) for below, earlier, output in references]
                    done[name, call] = self._read_call(layer, path, own, read)
            return done[name, call]

        for name, (layer, _) in by_name.items():
            for call in range(max(1, len(layer.get("inbound_nodes", ())))):
                outputs_of(name, call)
        last = _references(model["config"].get("output_layers"))
        return [outputs_of(name, call)(output) for name, call, output in last]

    def _read_call(self, layer: Mapping[str, Any], path: Path, group: Path, inputs: Sequence[Values]) -> Outputs:
        kind, own = str(layer.get("class_name")), (*path, _name_of(layer))
        if kind == "InputLayer":
            return lambda output: _all(inputs)
        if _layers_of(layer) or not isinstance(layer["config"], Mapping):
            outputs = self._read_model(layer, own, group, inputs)
            return lambda output: outputs[output] if output < len(outputs) else _all(outputs)
        config = layer["config"]
        if kind in _TRANSPARENT or (kind == "Activation" and config.get("activation") == "linear"):
            self.masks |= kind == "Masking"
            return lambda output: _all(inputs)
        self._add(Layer(own, group, kind, config, own), inputs)
        if "merge_mode" not in config and (wrapped := _as_layer(config.get("layer"))):
            self._read_wrapped(wrapped, own, group, inputs)
        return lambda output: frozenset({(own, output)})

    def _read_wrapped(self, layer: Mapping[str, Any], path: Path, group: Path, inputs: Sequence[Values]) -> None:
        """Read what a TimeDistributed or another wrapper applies; its weights stand in the group `layer`."""
        inner = (*group, "layer")
        if _layers_of(layer):
            self._read_model(layer, (*path, _name_of(layer)), inner, inputs)
        else:
            own = (*path, _name_of(layer))
            self._add(Layer(own, inner, str(layer.get("class_name")), layer["config"], path), inputs)

    def _add(self, layer: Layer, inputs: Sequence[Values]) -> None:
        self.layers.setdefault(layer.path, layer).inputs.update(_all(inputs))


def _all(inputs: Iterable[Values]) -> Values:
    return frozenset().union(*inputs)


def _longest(path: Path, layers: Mapping[Path, Layer]) -> Layer | None:
    """The layer at the longest beginning of a path at which there is one."""
    known = [path[:end] for end in range(len(path), 0, -1) if path[:end] in layers]
    return layers[known[0]] if known else None


def _layers_of(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The layers of a model; none for a layer."""
    config = model.get("config")
    # Of a Sequential before Keras 2.2.3 the configuration is the list.
    layers = config.get("layers") if isinstance(config, Mapping) else config
    if not isinstance(layers, Sequence) or isinstance(layers, str):
        return []
    return [layer for layer in map(_as_layer, layers) if layer is not None]


def _as_layer(value: Any) -> Mapping[str, Any] | None:
    """What a configuration holds of a layer; None where it is none."""
    return value if isinstance(value, Mapping) and isinstance(value.get("config"), Mapping | list) else None


def _name_of(layer: Mapping[str, Any]) -> str:
    config = layer["config"]
    return str(layer.get("name") or (config.get("name") if isinstance(config, Mapping) else None))


def _groups(layers: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Groups of layers in a file: their classes, numbered (keras/src/saving/saving_lib.py, _save_container_state)."""
    seen: Counter[str] = Counter()
    for layer in layers:
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", str(layer.get("class_name"))))
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        yield f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def _references(value: Any) -> Iterator[tuple[str, int, int]]:
    """Layer, call and output of all tensors that occur in `inbound_nodes`, `input_layers` or `output_layers`."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            name, call, output = value["config"]["keras_history"]
            yield str(name), int(call), int(output)
            return
        # A mask says which steps count: those of padding do not, and are never computed here.
        for key, one in value.items():
            if key != "mask":
                yield from _references(one)
    elif isinstance(value, list):
        match value:
            case [str() as name, int() as call, int() as output, *arguments]:
                yield name, call, output
                yield from _references(arguments)
            case _:
                for one in value:
                    yield from _references(one)
