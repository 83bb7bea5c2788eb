"""The libraries' side of a comparison, with the one that is always here: torch. The others need downloads."""

from pathlib import Path

import click
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.contestant import Contestant, WorkerContestant, compare_with_float64
from bench.encoders import random_bundle, random_encoder
from bench.libraries.library import LIBRARIES, Library, Worker, parameters_of, workers
from bench.libraries.onednn_runner import flat_weights
from bench.libraries.parameters import Parameters
from bench.libraries.torch_runner import TorchRunner, recurrence
from bench.libraries.worker import RUNNERS, read_batches, write_batches
from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_export.encoders import EncoderConfig, SequenceEncoder

INT8 = Library("PyTorch", "torch", "int8", None, pads=False)
BATCHES = [RaggedBatch.from_lists([[3, 4, 5, 6], [7]]), RaggedBatch.from_lists([[8, 9], [3, 4, 5], [6]])]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("models"), "bigru", 1)


def encoder(architecture: str, layers: int = 1) -> SequenceEncoder:
    torch.manual_seed(1)
    return SequenceEncoder(EncoderConfig(architecture, 20, 5, 7, layers=layers)).eval()  # type: ignore[arg-type]


def expected(module: torch.nn.Module, batch: RaggedBatch) -> NDArray[np.float32]:
    ids = torch.from_numpy(batch.padded().T.astype(np.int64))
    with torch.inference_mode():
        vectors: NDArray[np.float32] = module(ids, torch.from_numpy(batch.lengths)).numpy()
    return vectors


def test_every_library_has_a_runner_and_a_name_of_its_own() -> None:
    assert {library.runner for library in LIBRARIES} == RUNNERS.keys()
    assert len({library.label for library in LIBRARIES}) == len(LIBRARIES)


@pytest.mark.parametrize(("architecture", "layers"), [("bigru", 2), ("bilstm", 1)])
def test_weights_written_for_a_library_are_those_of_the_encoder(architecture: str, layers: int, tmp_path: Path) -> None:
    module = encoder(architecture, layers)
    parameters_of(module, architecture == "bilstm").write(tmp_path)
    read = Parameters.read(tmp_path)
    assert (len(read.layers), read.hidden) == (layers, 7)
    for one, two in zip(recurrence(read).parameters(), module.core.parameters(), strict=True):
        assert torch.equal(one, two)


def walk(weights: NDArray[np.float32], inputs: NDArray[np.float32], hidden: int, lstm: bool) -> NDArray[np.float32]:
    """One direction over [T, inputs] by the equations of oneDNN, with weights laid out for it; the last state [H]."""

    def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float32)

    gates, width = 4 if lstm else 3, inputs.shape[1]
    read, state, bias = np.split(weights, np.cumsum([width * gates * hidden, hidden * gates * hidden]))
    read, state, bias = (
        read.reshape(width, gates, hidden),
        state.reshape(hidden, gates, hidden),
        bias.reshape(4, hidden),
    )
    h = c = np.zeros(hidden, dtype=np.float32)
    for x in inputs:
        W, U = np.einsum("i,igh->gh", x, read), np.einsum("i,igh->gh", h, state)
        if lstm:
            i, f, new, o = W + U + bias
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
            h = sigmoid(o) * np.tanh(c)
        else:
            update, reset = sigmoid(W[0] + U[0] + bias[0]), sigmoid(W[1] + U[1] + bias[1])
            h = update * h + (1 - update) * np.tanh(W[2] + reset * (U[2] + bias[3]) + bias[2])
    return h


@pytest.mark.parametrize("architecture", ["bigru", "bilstm"])
def test_weights_for_onednn_give_the_encoders_vectors_by_its_equations(architecture: str) -> None:
    module, lstm = encoder(architecture), architecture == "bilstm"
    parameters = parameters_of(module, lstm)
    forward, backward = np.split(flat_weights(parameters), 2)
    embedded = parameters.embedding[BATCHES[0].row(0)]
    found = np.concatenate([walk(forward, embedded, 7, lstm), walk(backward, embedded[::-1], 7, lstm)])
    np.testing.assert_allclose(found, expected(module, BATCHES[0])[0], atol=1e-5)


def test_batches_are_handed_over_as_they_are(tmp_path: Path) -> None:
    write_batches(tmp_path / "batches.npz", BATCHES)
    read = read_batches(tmp_path / "batches.npz")
    assert [batch.keys() for batch in read] == [batch.keys() for batch in BATCHES]


def test_fewer_bits_in_torch_are_near_the_encoder_for_mixed_and_for_equal_lengths(tmp_path: Path) -> None:
    module = encoder("bilstm", 2)
    parameters_of(module, True).write(tmp_path)
    for precision, tolerance in (("bf16", 0.02), ("int8", 0.05)):
        runner = TorchRunner(tmp_path, precision)  # type: ignore[arg-type]
        for batch in (*BATCHES, RaggedBatch.from_lists([[3, 4], [5, 6]])):
            found = runner.prepare(batch, equal=False)()
            error = np.abs(found - expected(module, batch)).max()
            assert 0 < error < tolerance


def test_a_library_is_measured_in_a_process_of_its_own_and_others_are_reported(bundle: Bundle, tmp_path: Path) -> None:
    module, _ = random_encoder("bigru", 1)
    unknown = Library("Nobody's", "nothing", "float32", None)
    with workers([INT8, unknown], bundle, module, tmp_path, core=0) as (started, missing):
        assert [worker.library for worker in started] == [INT8]
        assert "nothing" in missing["Nobody's float32"]
        contestant = WorkerContestant.of("torch", started[0], BATCHES, False)
        contestant.measure(0.01)
        assert contestant.tokens_per_second > 0
        (row,) = compare_with_float64([contestant], module)
        assert 1e-5 < row["error"] < 0.05
        assert row["right"]
        with pytest.raises(click.ClickException, match="index out of range"):
            started[0].encode(contestant.number, 99, 2)
    assert not (tmp_path / "PyTorch-int8-0.npz").exists()


def test_an_environment_that_cannot_be_made_is_a_missing_library(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Path:
        raise click.ClickException(f"no {name} for this processor")

    monkeypatch.setattr("bench.libraries.library.environment", refuse)
    module, _ = random_encoder("bigru", 1)
    with workers([Library("oneDNN", "onednn", "bf16", "onednn")], bundle, module, tmp_path, core=0) as found:
        assert found == ([], {"oneDNN bf16": "no onednn for this processor"})


def test_a_worker_that_ends_is_an_error_that_names_it(bundle: Bundle, tmp_path: Path) -> None:
    module, _ = random_encoder("bigru", 1)
    parameters_of(module, False).write(tmp_path)
    worker = Worker(INT8, tmp_path, core=0)
    worker._process.kill()
    with pytest.raises(click.ClickException, match="PyTorch int8 ended with status"):
        worker.prepare(BATCHES, equal=False)
    worker.close()


def test_vectors_that_are_not_those_of_the_encoder_are_called_wrong() -> None:
    module = encoder("bigru")
    right = Contestant("right", lambda number: expected(module, BATCHES[number]), BATCHES, True)
    wrong = Contestant("wrong", lambda number: expected(module, BATCHES[number]) + 1e-3, BATCHES, False)
    rounded = Contestant("rounded", wrong.run, BATCHES, False, rounding=5e-2)
    rows = compare_with_float64([right, wrong, rounded], module)
    assert [row["right"] for row in rows] == [True, False, True]
    assert rows[1]["error"] == pytest.approx(1e-3, rel=0.01)
    # 5 of 8 and 6 of 9 cells hold tokens.
    assert rows[0]["padding"] == pytest.approx(6 / 17)
    assert rows[1]["padding"] == 0
