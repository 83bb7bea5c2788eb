"""How the layers of a Keras model are wired, from the configuration in its file.

Weights do not show what stands between an embedding and a recurrence, or between two recurrences; a configuration does.
Keras 3 writes `inbound_nodes` as tensors with a `keras_history`, Keras 2 as lists of [layer, node, tensor, arguments];
a Sequential is a list of layers, each of which reads the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Names of the models around a layer, and its own.
Path = tuple[str, ...]

INPUT: Path = ()
"""What a layer reads that reads the model's own input."""

# Layers that change nothing when a model is used, and those that only say which steps count.
_TRANSPARENT = frozenset(
    {"Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization"}
    | {"Identity", "Masking"}
)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a model.

    Attributes:
        path: Where it stands.
        kind: Its class.
        config: Its configuration.
        inputs: What it reads, over all calls.
    """

    path: Path
    kind: str
    config: Mapping[str, Any]
    inputs: frozenset[Path]

    @property
    def transparent(self) -> bool:
        """Whether its outputs are its inputs when the model is used."""
        return self.kind in _TRANSPARENT or (self.kind == "Activation" and self.config.get("activation") == "linear")

    def __str__(self) -> str:
        return f"{self.path[-1]} ({self.kind})"


class KerasGraph:
    """The layers of a model and what each of them reads; empty for a model that does not say."""

    def __init__(self, config: Any) -> None:
        """Read the configuration of a model, that of `.keras` files or the `model_config` of HDF5 files."""
        self.layers: dict[Path, Layer] = {}
        if isinstance(config, Mapping) and _layers_of(config):
            self._read_model(config, (), frozenset({INPUT}))

    def find(self, place: str, names: Mapping[str, str]) -> Layer | None:
        """The layer whose weights, or those of what it wraps, stand at `place` in the file; None if it is not known.

        Args:
            place: A group of the file.
            names: Names of layers by group, where the file says them (Keras 3).
        """
        parts = place.split("/")
        prefixes = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        if named := tuple(names[prefix] for prefix in prefixes if prefix in names):
            known = [named[:end] for end in range(len(named), 0, -1) if named[:end] in self.layers]
            return self.layers[known[0]] if known else None
        # Groups of Keras 2 are called as the layers, mostly below those of the models around them.
        nearness = {
            layer: (-parts[::-1].index(layer.path[-1]), len(set(layer.path) & set(parts)))
            for layer in self.layers.values()
            if layer.path[-1] in parts
        }
        nearest = [layer for layer, near in nearness.items() if near == max(nearness.values())]
        return nearest[0] if len(nearest) == 1 else None

    def sources(self, layer: Layer) -> frozenset[Path]:
        """What a layer reads behind layers that change nothing."""
        found, seen, open_ends = set(), set(), list(layer.inputs)
        while open_ends:
            path = open_ends.pop()
            if path in seen:
                continue
            seen.add(path)
            below = self.layers.get(path)
            if below is not None and below.transparent:
                open_ends.extend(below.inputs)
            else:
                found.add(path)
        return frozenset(found)

    def readers(self, path: Path) -> list[Layer]:
        """The layers that read the outputs of one, behind layers that change nothing."""
        return [layer for layer in self.layers.values() if not layer.transparent and path in self.sources(layer)]

    def passes(self, layer: Layer, kind: str) -> bool:
        """Whether a layer reads its sources through one of this class."""
        below = [self.layers[path] for path in layer.inputs if path in self.layers]
        return any(one.transparent and (one.kind == kind or self.passes(one, kind)) for one in below)

    def is_a(self, path: Path, kind: str) -> bool:
        """Whether a known layer of this class stands at `path`."""
        return path in self.layers and self.layers[path].kind == kind

    def named(self, paths: Iterable[Path]) -> str:
        """Layers for a message."""
        return ", ".join(
            "the model's input" if path == INPUT else str(self.layers.get(path, path[-1])) for path in sorted(paths)
        )

    def _read_model(self, model: Mapping[str, Any], path: Path, inputs: frozenset[Path]) -> frozenset[Path]:
        """Read the layers of a model that stands at `path` and reads `inputs`; gives those that make its outputs."""
        layers = _layers_of(model)
        if not any("inbound_nodes" in layer for layer in layers):
            for layer in layers:
                inputs = self._read_layer(layer, path, inputs)
            return inputs
        by_name = {_name_of(layer): layer for layer in layers}
        outputs: dict[str, frozenset[Path]] = {}

        def outputs_of(name: str) -> frozenset[Path]:
            if name in outputs or name not in by_name:
                return outputs.get(name, frozenset({(*path, name)}))
            # What a layer reads that reads itself.
            outputs[name] = frozenset({(*path, name)})
            read = {one for below in _references(by_name[name]["inbound_nodes"]) for one in outputs_of(below)}
            outputs[name] = self._read_layer(by_name[name], path, frozenset(read) or inputs)
            return outputs[name]

        for name in by_name:
            outputs_of(name)
        config = model["config"]
        last = list(_references(config.get("output_layers"))) if isinstance(config, Mapping) else []
        return frozenset(one for name in last for one in outputs_of(name))

    def _read_layer(self, layer: Mapping[str, Any], path: Path, inputs: frozenset[Path]) -> frozenset[Path]:
        kind, own = str(layer.get("class_name")), (*path, _name_of(layer))
        if kind == "InputLayer":
            return inputs
        if _layers_of(layer) or not isinstance(layer["config"], Mapping):
            return self._read_model(layer, own, inputs)
        config = layer["config"]
        self.layers[own] = Layer(own, kind, config, inputs)
        wrapped = config.get("layer")
        if (
            kind != "Bidirectional"
            and isinstance(wrapped, Mapping)
            and isinstance(wrapped.get("config"), Mapping | list)
        ):
            self._read_layer(wrapped, own, inputs)
        return frozenset({own})


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


def _references(value: Any) -> Iterator[str]:
    """Names of the layers whose tensors occur anywhere in `inbound_nodes` or `output_layers`."""
    if isinstance(value, Mapping):
        config = value.get("config")
        if value.get("class_name") == "__keras_tensor__" and isinstance(config, Mapping):
            yield str(config["keras_history"][0])
        else:
            # A mask says which steps count: those of padding do not, and are never computed here.
            for name, one in value.items():
                if name != "mask":
                    yield from _references(one)
    elif isinstance(value, list):
        match value:
            case [str() as name, int(), int(), *arguments]:
                yield name
                yield from _references(arguments)
            case _:
                for one in value:
                    yield from _references(one)
