"""Models of real Keras whose layers stand on each other in another way than their sizes and names suggest."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.vocabulary import VocabularyTokenizer
from birnn_export.checkpoints.adoption import Adopted, adopt
from birnn_export.checkpoints.keras_graph import INPUT, KerasGraph
from birnn_export.checkpoints.selection import Choices
from birnn_export.checkpoints.stored_weights import read_weights
from birnn_export.training.checkpoint import CheckpointError
from birnn_export.verification import reference

# Id 0 is that of padding, as Keras has it.
TOKENIZER = VocabularyTokenizer({token: number for number, token in enumerate(["<pad>", *"CNOPSF12"])}, "smiles")


def adopted(path: Path, *prefixes: str, pooling: Any = "final", embedding: str | None = None) -> Adopted:
    return adopt(read_weights(path), TOKENIZER, Choices(pooling=pooling, prefixes=prefixes, embedding=embedding))


def vectors(found: Adopted, expected: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    batch = RaggedBatch(expected["ids"].astype(np.int32), offsets_of(expected["lengths"]))
    return reference(found.checkpoint.encoder, batch).pooled


@pytest.mark.parametrize("file", ["order.h5", "order.keras", "nested.keras", "dropout.keras", "outputs.keras"])
def test_layers_stand_as_in_the_model_and_not_by_name(
    files: Path, expected: Mapping[str, NDArray[Any]], file: str
) -> None:
    found = adopted(files / file)
    assert found.checkpoint.config.layers == 2
    assert np.abs(vectors(found, expected) - expected[file]).max() < 1e-6


@pytest.mark.parametrize("file", ["order.keras", "nested.keras", "dropout.keras", "outputs.keras"])
def test_files_without_names_are_read_by_their_groups(
    files: Path, expected: Mapping[str, NDArray[Any]], tmp_path: Path, file: str
) -> None:
    """Before 3.6 Keras kept no names of layers beside their weights."""
    with zipfile.ZipFile(files / file) as archive, zipfile.ZipFile(tmp_path / file, "w") as old:
        weights = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights, "r+") as opened:
            opened.visititems(lambda _, item: item.attrs.pop("name", None) and None)
        old.writestr("model.weights.h5", weights.getvalue())
        old.writestr("config.json", archive.read("config.json"))
    assert not read_weights(tmp_path / file).keras_names
    found = adopted(tmp_path / file)
    assert found.checkpoint.config.layers == 2
    assert np.abs(vectors(found, expected) - expected[file]).max() < 1e-6


@pytest.mark.parametrize(
    "file", ["autoencoder.keras", "branches.keras", "residual.keras", "normalized.h5", "states.keras"]
)
def test_recurrences_that_do_not_stand_on_each_other_are_asked_for(files: Path, file: str) -> None:
    with pytest.raises(CheckpointError, match="holds several recurrences; choose one with --prefix"):
        adopted(files / file)


@pytest.mark.parametrize(("file", "prefix"), [("autoencoder.keras", "code"), ("branches.keras", "left")])
def test_one_of_them_is_that_of_the_model(
    files: Path, expected: Mapping[str, NDArray[Any]], file: str, prefix: str
) -> None:
    assert np.abs(vectors(adopted(files / file, prefix), expected) - expected[file]).max() < 1e-6


@pytest.mark.parametrize(
    ("file", "prefixes", "message"),
    [
        (
            "autoencoder.keras",
            ("code", "decoder"),
            r"bidirectional_1 reads repeat_vector \(RepeatVector\) in the model, and not",
        ),
        (
            "branches.keras",
            ("left", "right"),
            r"reads embedding_\d+ .* cannot be exported as one stack",
        ),
        ("residual.keras", ("lower", "above"), r"reads add \(Add\)"),
        ("normalized.h5", ("lower", "above"), r"reads layer_normalization \(LayerNormalization\)"),
        ("normalized.h5", ("above",), r"reads layer_normalization .* --embedding none"),
        ("order.keras", ("above", "lower"), r"reads embedding_\d+ \(Embedding\) in the model, and not"),
        ("states.keras", ("lower", "above"), r"reads lower \(Bidirectional\) and its states in the model"),
        ("joined.keras", (), "merges its directions by 'sum'"),
        ("order.keras", ("lower", "lower"), "more than once"),
        ("twice.keras", (), r"reads embedding_\d+ \(Embedding\), shared \(Bidirectional\) in the model"),
        ("rescaled.keras", (), r"reads rescaling \(Rescaling\) in the model"),
        ("started.keras", ("encoder",), r"reads dense_\d+ \(Dense\), dense_\d+ \(Dense\), embedding_\d+ \(Embedding\)"),
        ("activations.keras", (), "has cells of different activations, which are not served: relu, tanh"),
        ("resets.keras", (), "has reset_after=True in one cell and False in another"),
    ],
)
def test_what_the_model_computes_in_another_way_is_refused(
    files: Path, file: str, prefixes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        adopted(files / file, *prefixes)


def test_an_embedding_that_is_named_is_taken_with_a_note(files: Path) -> None:
    table = "layers/embedding/vars/0"
    notes = adopted(files / "rescaled.keras", embedding=table).notes
    assert any("reads rescaling (Rescaling) in the model; what is not an embedding is left out" in one for one in notes)
    assert not any("reads" in one for one in adopted(files / "order.keras", embedding=table).notes)
    notes = adopted(files / "started.keras", "encoder", embedding=table).notes
    assert any("what is not an embedding is left out" in one for one in notes)


def test_a_recurrence_alone_can_be_had_for_float_features(files: Path) -> None:
    choices = Choices(pooling="final", embedding="none")
    assert adopt(read_weights(files / "rescaled.keras"), None, choices).checkpoint.config.inputs == "features"


def test_another_pooling_than_that_of_the_model_is_told(files: Path, expected: Mapping[str, NDArray[Any]]) -> None:
    found = adopted(files / "largest.keras", pooling="max")
    assert np.abs(vectors(found, expected) - expected["largest.keras"]).max() < 1e-6
    assert not any("the model itself" in note for note in found.notes)
    assert adopted(files / "largest.keras").notes[-1] == (
        "the model itself makes its vectors as --pooling max does, not final"
    )
    assert "as --pooling final does, not mean" in adopted(files / "order.keras", pooling="mean").notes[-1]


def test_a_token_that_the_model_would_skip_is_told(files: Path) -> None:
    assert not any("mask_zero" in note for note in adopted(files / "order.keras").notes)
    zero = VocabularyTokenizer({token: number for number, token in enumerate("CNOPSF123")}, "smiles")
    found = adopt(read_weights(files / "order.keras"), zero, Choices(pooling="final"))
    assert "id 0 (mask_zero=True), which is 'C' here" in found.notes[-1]


def test_what_no_configuration_says_is_told(files: Path) -> None:
    assert "nothing in the file says how" in adopted(files / "gru_reset_before.weights.h5").notes[-1]
    assert not any("nothing in the file" in note for note in adopted(files / "order.keras").notes)


def test_a_layer_with_a_merge_mode_that_wraps_none_is_one_that_no_configuration_describes(
    files: Path, tmp_path: Path
) -> None:
    """A class of the author's own may call what it wraps by any name."""
    with zipfile.ZipFile(files / "order.keras") as old, zipfile.ZipFile(tmp_path / "own.keras", "w") as new:
        for name in old.namelist():
            content = old.read(name).replace(b'"layer": {', b'"inner": {')
            new.writestr(name, content.replace(b'"backward_layer": {', b'"other": {'))
    found = adopted(tmp_path / "own.keras", "lower", embedding="layers/embedding/vars/0")
    assert any("nothing in the file says how its layer is configured" in note for note in found.notes)


def sequential(*layers: tuple[str, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"class_name": kind, "config": {"name": name, **config}} for name, kind, config in layers]


LAYERS = sequential(("words", "Embedding", {}), ("drop", "Dropout", {}), ("up", "Bidirectional", {}))


@pytest.mark.parametrize("config", [LAYERS, {"layers": LAYERS}], ids=["before Keras 2.2.3", "since"])
def test_a_sequential_is_a_chain(config: Any) -> None:
    graph = KerasGraph({"class_name": "Sequential", "config": config})
    assert graph.layers["up",].inputs == {(("words",), 0)}
    assert graph.layers["words",].inputs == {INPUT}
    found = graph.find("model_weights/up/up", {})
    assert found is graph.layers["up",]
    assert graph.find("model_weights/down/down", {}) is None


def test_a_functional_model_of_keras_2_is_read() -> None:
    def layer(name: str, kind: str, *inputs: Any) -> dict[str, Any]:
        return {"name": name, "class_name": kind, "config": {"name": name}, "inbound_nodes": list(inputs)}

    layers = [
        layer("up", "Bidirectional", [["words", 0, 0, {"initial_state": ["state", 0, 0]}]]),
        layer("input", "InputLayer"),
        layer("state", "Dense", [["input", 0, 0, {}]]),
        layer("words", "Embedding", [["input", 0, 0, {}]]),
    ]
    graph = KerasGraph({"class_name": "Model", "config": {"layers": layers, "output_layers": [["up", 0, 0]]}})
    assert graph.layers["up",].inputs == {(("words",), 0), (("state",), 0)}
    assert [reader.path for reader in graph.readers(graph.layers["words",])] == [("up",)]


def broken(history: Any) -> dict[str, Any]:
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": history}}
    layers = [
        {"name": "up", "class_name": "Bidirectional", "config": {}, "inbound_nodes": [{"args": [tensor], "kwargs": {}}]}
    ]
    return {"class_name": "Functional", "config": {"layers": layers, "output_layers": [["up", 0, 0]]}}


@pytest.mark.parametrize("history", [[], 3, None, ["other", 0, 0], {}])
def test_configurations_of_another_shape_are_no_graph(history: Any) -> None:
    assert KerasGraph(broken(history)).layers == {}


def test_a_layer_that_reads_itself_is_read() -> None:
    assert KerasGraph(broken(["up", 0, 0])).layers["up",].inputs == {(("up",), 0)}


@pytest.mark.parametrize(
    "config",
    [None, 3, {}, {"config": None}, {"config": {"layers": None}}, {"config": {"layers": [1, {"config": "x"}]}}],
)
def test_configurations_that_say_nothing_are_no_graph(config: Any) -> None:
    assert KerasGraph(config).layers == {}


@pytest.mark.parametrize("file", ["lines.keras", "lines.h5"])
def test_a_model_that_another_layer_applies_to_each_line_keeps_its_activations(files: Path, file: str) -> None:
    assert adopted(files / file).checkpoint.config.nonlinearity == "relu"
