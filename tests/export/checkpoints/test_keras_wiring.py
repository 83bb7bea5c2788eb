"""Models of real Keras whose layers stand on each other in another way than their sizes and names suggest."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.ragged import RaggedBatch, offsets_of
from bundle.vocabulary import VocabularyTokenizer
from export.checkpoints.adoption import Adopted, adopt
from export.checkpoints.keras_graph import INPUT, KerasGraph
from export.checkpoints.selection import Choices
from export.checkpoints.stored_weights import read_weights
from export.training.checkpoint import CheckpointError
from export.verification import reference
from tests.export.checkpoints.test_keras_layers import ARCHIVE

# Id 0 is that of padding, as Keras has it.
TOKENIZER = VocabularyTokenizer({token: number for number, token in enumerate(["<pad>", *"CNOPSF12"])}, "smiles")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(files: Path) -> Mapping[str, NDArray[Any]]:
    with np.load(files / "expected.npz") as arrays:
        return dict(arrays)


def adopted(path: Path, *prefixes: str, pooling: Any = "final", embedding: str | None = None) -> Adopted:
    return adopt(read_weights(path), TOKENIZER, Choices(pooling=pooling, prefixes=prefixes, embedding=embedding))


def vectors(found: Adopted, expected: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    batch = RaggedBatch(expected["ids"].astype(np.int32), offsets_of(expected["lengths"]))
    return reference(found.checkpoint.encoder, batch).pooled


@pytest.mark.parametrize("file", ["order.h5", "order.keras", "nested.keras"])
def test_layers_stand_as_in_the_model_and_not_by_name(
    files: Path, expected: Mapping[str, NDArray[Any]], file: str
) -> None:
    found = adopted(files / file)
    assert found.checkpoint.config.layers == 2
    assert np.abs(vectors(found, expected) - expected[file]).max() < 1e-6


@pytest.mark.parametrize("file", ["autoencoder.keras", "branches.keras", "residual.keras", "normalized.h5"])
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
            r"bidirectional_1 does not .* but repeat_vector",
        ),
        ("branches.keras", ("left", "right"), r"but embedding_\d+ \(Embedding\); they cannot be exported as one stack"),
        ("residual.keras", ("lower", "above"), r"but add \(Add\)"),
        ("normalized.h5", ("lower", "above"), r"but layer_normalization \(LayerNormalization\)"),
        ("normalized.h5", ("above",), r"reads layer_normalization .* --embedding none"),
        ("order.keras", ("above", "lower"), r"does not read .* but embedding_\d+ \(Embedding\)"),
        ("order.keras", ("lower", "lower"), "more than once"),
        ("twice.keras", (), r"reads embedding_\d+ \(Embedding\), shared \(Bidirectional\) in the model"),
        ("rescaled.keras", (), r"reads rescaling \(Rescaling\) in the model"),
        ("started.keras", ("encoder",), r"reads dense_\d+ \(Dense\), dense_\d+ \(Dense\), embedding_\d+ \(Embedding\)"),
        ("activations.keras", (), "has other activations forward than backward: relu, tanh"),
        ("resets.keras", (), "has reset_after=True in one direction and False in the other"),
        ("lines.keras", (), "has the activation 'relu'"),
        ("lines.h5", (), "has the activation 'relu'"),
    ],
)
def test_what_the_model_computes_in_another_way_is_refused(
    files: Path, file: str, prefixes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        adopted(files / file, *prefixes)


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
    assert "configuration is not in the file" in adopted(files / "gru_reset_before.weights.h5").notes[-1]
    assert not any("configuration" in note for note in adopted(files / "order.keras").notes)


def sequential(*layers: tuple[str, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"class_name": kind, "config": {"name": name, **config}} for name, kind, config in layers]


LAYERS = sequential(("words", "Embedding", {}), ("drop", "Dropout", {}), ("up", "Bidirectional", {}))


@pytest.mark.parametrize("config", [LAYERS, {"layers": LAYERS}], ids=["before Keras 2.2.3", "since"])
def test_a_sequential_is_a_chain(config: Any) -> None:
    graph = KerasGraph({"class_name": "Sequential", "config": config})
    assert graph.sources(graph.layers["up",]) == {("words",)}
    assert graph.sources(graph.layers["words",]) == {INPUT}
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
    assert graph.sources(graph.layers["up",]) == {("words",), ("state",)}
    assert [reader.path for reader in graph.readers(("words",))] == [("up",)]


@pytest.mark.parametrize(
    "config",
    [None, 3, {}, {"config": None}, {"config": {"layers": None}}, {"config": {"layers": [1, {"config": "x"}]}}],
)
def test_configurations_that_say_nothing_are_no_graph(config: Any) -> None:
    assert KerasGraph(config).layers == {}
