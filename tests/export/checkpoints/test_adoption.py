"""Checkpoints of every known origin, against what their own modules compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from torch import nn

from birnn_bundle.bundle import Bundle
from birnn_bundle.huggingface import HuggingFaceTokenizer
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.vocabulary import VocabularyTokenizer
from birnn_export.bundle_writer import write_bundle
from birnn_export.checkpoints.adoption import adopt
from birnn_export.checkpoints.selection import Choices
from birnn_export.checkpoints.stored_weights import StoredWeights, from_state_dict, read_weights
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.training.checkpoint import CheckpointError
from birnn_export.verification import reference
from tests.export.checkpoints.foreign_modules import (
    MOLECULES,
    TOKENIZER,
    TOKENS,
    E,
    H,
    Model,
    bundle_vectors,
    rows_of,
    scratch_parameters,
    scratch_vector,
)

FINAL = Choices(pooling="final")
BATCH = TOKENIZER.tokenize(MOLECULES, 50).batch


def exported(stored: StoredWeights, folder: Path, choices: Choices = FINAL) -> Bundle:
    adopted = adopt(stored, TOKENIZER, choices, max_length=30)
    return write_bundle(adopted.checkpoint, folder / "models" / "foreign" / "1")


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("kind", "options", "choices"),
    [
        (nn.GRU, {}, FINAL),
        (nn.LSTM, {"batch_first": True}, FINAL),
        (nn.RNN, {}, Choices(pooling="final", nonlinearity="tanh")),
        (nn.RNN, {"nonlinearity": "relu"}, Choices(pooling="final", nonlinearity="relu")),
    ],
    ids=["gru", "lstm", "rnn-tanh", "rnn-relu"],
)
def test_a_state_dict_of_torch_encodes_as_its_own_module_does(
    tmp_path: Path, kind: type[nn.GRU], options: dict[str, Any], choices: Choices, layers: int, bias: bool
) -> None:
    model = Model(kind, num_layers=layers, bias=bias, **options)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    bundle = exported(read_weights(tmp_path / "model.pt"), tmp_path, choices)
    assert np.abs(bundle_vectors(bundle, BATCH) - model.vectors(rows_of(BATCH))).max() < 1e-6
    assert (bundle.manifest.layers, bundle.manifest.bias, bundle.manifest.hidden_size) == (layers, bias, H)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("gates", ["h", "rzh", "ifco"], ids=["rnn", "gru", "lstm"])
def test_a_state_dict_from_scratch_encodes_as_its_equations_do(tmp_path: Path, gates: str, bias: bool) -> None:
    weights = scratch_parameters(gates, ("f_rnn", "b_rnn"), bias)
    bundle = exported(StoredWeights("scratch.pt", from_state_dict(weights)), tmp_path)
    expected = [scratch_vector(weights, gates, ("f_rnn", "b_rnn"), row.tolist()).numpy() for row in rows_of(BATCH)]
    assert np.abs(bundle_vectors(bundle, BATCH) - np.stack(expected)).max() < 1e-6
    assert bundle.manifest.linear_before_reset is (gates != "rzh")


@pytest.mark.parametrize(
    "directions",
    [
        ("fwd", "bwd"),
        ("model.forward_layer", "model.backward_layer"),
        ("layers.0.f_cell", "layers.0.b_cell"),
        ("net.f_rnns.0", "net.b_rnns.0"),
    ],
)
def test_directions_from_scratch_are_told_by_their_names(directions: tuple[str, str]) -> None:
    weights = scratch_parameters("h", directions)
    adopted = adopt(StoredWeights("scratch.pt", from_state_dict(weights)), TOKENIZER, FINAL)
    found = reference(adopted.checkpoint.encoder, BATCH).pooled
    expected = [scratch_vector(weights, "h", directions, row.tolist()).numpy() for row in rows_of(BATCH)]
    assert np.abs(found - np.stack(expected)).max() < 1e-12


@pytest.mark.parametrize("architecture", ["birnn-scratch", "bigru", "bilstm"])
def test_encoders_of_this_project_are_read_from_their_bare_weights_too(architecture: str) -> None:
    torch.manual_seed(8)
    config = EncoderConfig(architecture, len(TOKENS), E, H, layers=3, pooling="mean+max")  # type: ignore[arg-type]
    encoder = SequenceEncoder(config)
    stored = StoredWeights("own.safetensors", from_state_dict(encoder.state_dict()))
    adopted = adopt(stored, TOKENIZER, Choices(pooling="mean+max")).checkpoint
    assert adopted.config == config
    assert np.array_equal(reference(adopted.encoder, BATCH).pooled, reference(encoder, BATCH).pooled)


def test_safetensors_nested_dictionaries_and_other_precisions_are_read(tmp_path: Path) -> None:
    model = Model(nn.GRU).bfloat16()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    optimizer = torch.optim.AdamW(model.parameters())
    nested = {"epoch": 3, "model": {"state_dict": model.state_dict()}, "optimizer": optimizer.state_dict()}
    torch.save(nested, tmp_path / "nested.ckpt")
    stored = [read_weights(tmp_path / file) for file in ("model.safetensors", "nested.ckpt")]
    vectors = [reference(adopt(one, TOKENIZER, FINAL).checkpoint.encoder, BATCH).pooled for one in stored]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - model.vectors(rows_of(BATCH))).max() < 1e-12


def test_one_hot_tokens_need_no_embedding_in_the_checkpoint() -> None:
    torch.manual_seed(9)
    rnn = nn.GRU(len(TOKENS), H, bidirectional=True)
    stored = StoredWeights("onehot.pt", from_state_dict(rnn.state_dict()))
    adopted = adopt(stored, TOKENIZER, Choices(pooling="final", embedding="one-hot")).checkpoint
    row = BATCH.row(3)
    with torch.inference_mode():
        _, states = rnn.double()(nn.functional.one_hot(torch.from_numpy(row).long(), len(TOKENS)).double())
    found = reference(adopted.encoder, RaggedBatch.from_lists([row])).pooled[0]
    assert np.abs(found - states.reshape(-1).numpy()).max() < 1e-12


@pytest.mark.parametrize("size", [H, 2 * H])
def test_single_layers_under_several_names_are_stacked_in_the_order_of_their_prefixes(size: int) -> None:
    torch.manual_seed(10)
    upper, lower = nn.GRU(2 * size, H, bidirectional=True), nn.GRU(E, size, bidirectional=True)
    weights = {"emb.weight": torch.randn(len(TOKENS), E)}
    weights |= {f"a.{name}": values for name, values in upper.state_dict().items()}
    weights |= {f"b.{name}": values for name, values in lower.state_dict().items()}
    stored = StoredWeights("two.pt", from_state_dict(weights))
    adopted = adopt(stored, TOKENIZER, Choices(pooling="final", prefixes=("b", "a"))).checkpoint
    with torch.inference_mode():
        x = weights["emb.weight"].double()[torch.from_numpy(BATCH.row(4)).long()]
        _, states = upper.double()(lower.double()(x)[0])
    assert adopted.config.layer_sizes == (size, H)
    found = reference(adopted.encoder, RaggedBatch.from_lists([BATCH.row(4)])).pooled[0]
    assert np.abs(found - states.reshape(-1).numpy()).max() < 1e-12
    with pytest.raises(CheckpointError, match="a, b cannot be one stack: the input weights of layer 1, forward"):
        adopt(stored, TOKENIZER, Choices(pooling="final", prefixes=("a", "b")))


def test_notes_say_what_was_taken_and_what_was_left() -> None:
    stored = StoredWeights("model.pt", from_state_dict(Model(nn.GRU).state_dict()))
    assert adopt(stored, TOKENIZER, FINAL).notes == (
        "encoder.rnn: bidirectional GRU, 1 layer, 5 -> 2 x 3",
        "embedding token_embedding.weight: 10 rows of 5",
        "not used: head.bias, head.weight",
    )
    scratch = StoredWeights("scratch.pt", from_state_dict(scratch_parameters("rzh", ("f_gru", "b_gru"))))
    assert "runs on a CPU only" in adopt(scratch, TOKENIZER, FINAL).notes[2]


def test_ids_beyond_the_embedding_are_refused_and_fewer_are_not() -> None:
    stored = StoredWeights("model.pt", from_state_dict(Model(nn.GRU).state_dict()))
    larger = VocabularyTokenizer({"C": 10}, "smiles")
    with pytest.raises(CheckpointError, match=r"ids up to 10, and embedding token_embedding\.weight has rows 0 to 9"):
        adopt(stored, larger, FINAL)
    assert adopt(stored, VocabularyTokenizer({"C": 9}, "smiles"), FINAL).checkpoint.config.vocab_size == 10


def test_a_missing_pooling_or_tokenizer_is_asked_for() -> None:
    stored = StoredWeights("model.pt", from_state_dict(Model(nn.GRU).state_dict()))
    with pytest.raises(CheckpointError, match=r"model\.pt: holds encoder\.rnn: .* add --pooling final"):
        adopt(stored, TOKENIZER, Choices())
    with pytest.raises(CheckpointError, match=r"token_embedding\.weight has 10 rows.* add --tokenizer FILE"):
        adopt(stored, None, FINAL)


def trained() -> StoredWeights:
    return StoredWeights("file.pt", from_state_dict(Model(nn.GRU).state_dict()))


def test_tokens_that_no_text_is_cut_into_are_told() -> None:
    tokens = ["<pad>", "<unk>", "C", "O", "N", "Cl", "Br", "1", "(", ")"]
    tokenizer = VocabularyTokenizer({token: number for number, token in enumerate(tokens)}, "characters")
    notes = adopt(trained(), tokenizer, FINAL).notes
    assert notes[-1] == "tokens that no text is cut into: 'Cl', 'Br'; is --split the right one?"


def test_special_tokens_by_any_name_are_not_told() -> None:
    tokens = ["", "_PAD", "_UNK", "_GO", "_EOS", "<blank>", "PADDING", "C", "O", "N"]
    tokenizer = VocabularyTokenizer({token: number for number, token in enumerate(tokens)}, "characters")
    assert not any("--split" in note for note in adopt(trained(), tokenizer, FINAL).notes)


def test_a_vocabulary_of_whole_lines_is_refused() -> None:
    tokenizer = VocabularyTokenizer({f"{token} ": number for number, token in enumerate("CON123")}, "smiles")
    with pytest.raises(CheckpointError, match=r"texts are never cut into most tokens of the vocabulary \('C ', 'O '"):
        adopt(trained(), tokenizer, FINAL)


def test_a_tokenizer_that_cuts_is_told_not_to_here() -> None:
    backend = Backend(WordLevel({"[UNK]": 0, "C": 1}, unk_token="[UNK]"))
    backend.enable_truncation(3)
    tokenizer = HuggingFaceTokenizer(backend)
    notes = adopt(trained(), tokenizer, FINAL).notes
    assert "cuts sequences after 3 tokens; here --max-length is the limit" in notes[-1]
