"""`birnn export --expect`: what a model's own code makes of texts is what will be served, or nothing is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from birnn.cli.main import main
from tests.export.checkpoints.foreign_modules import MOLECULES, TOKENIZER, TOKENS, Model, rows_of


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(Model(nn.GRU).state_dict(), tmp_path / "model.pt")
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    return tmp_path / "model.pt"


@pytest.fixture
def own() -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the model's own code makes of `MOLECULES`."""
    return Model(nn.GRU).vectors(rows_of(TOKENIZER.tokenize(MOLECULES, 50).batch))


def export(weights: Path, pooling: str = "final") -> Result:
    folder = weights.parent
    options = ["--pooling", pooling, "--tokenizer", folder / "vocab.txt", "--split", "smiles"]
    words = ["export", weights, "-o", folder / "models" / "mine" / "1", "--expect", folder / "own.npz", *options]
    return CliRunner().invoke(main, [str(word) for word in words])


def written(weights: Path) -> bool:
    return (weights.parent / "models" / "mine" / "1").exists()


@pytest.mark.parametrize("texts", [np.array(MOLECULES), np.array([one.encode() for one in MOLECULES])])
def test_vectors_that_agree_are_told_with_their_error(weights: Path, own: Any, texts: Any) -> None:
    np.savez(weights.parent / "own.npz", sequences=texts, vectors=own.astype(np.float32))
    result = export(weights)
    assert result.exit_code == 0, result.output
    assert f"own.npz: {len(MOLECULES)} vectors, off by at most " in result.output
    assert written(weights)


def test_a_model_that_does_more_than_its_recurrence_is_refused_with_the_worst_row(weights: Path, own: Any) -> None:
    vectors = own.copy()
    vectors[2] /= np.linalg.norm(vectors[2])
    np.savez(weights.parent / "own.npz", sequences=np.array(MOLECULES), vectors=vectors)
    result = export(weights)
    assert result.exit_code == 1
    assert "row 2, 'c1ccccc1', is off by " in result.output
    assert "the model does something before, behind or beside its recurrence" in result.output
    assert not written(weights)


@pytest.mark.parametrize(
    ("pooling", "detail"), [("mean", "(allowed: 7.9e-05)"), ("mean+max", "makes 12 floats, 6 are")]
)
def test_another_pooling_that_agrees_is_named(weights: Path, own: Any, pooling: str, detail: str) -> None:
    np.savez(weights.parent / "own.npz", sequences=np.array(MOLECULES), vectors=own)
    result = export(weights, pooling)
    assert result.exit_code == 1
    assert detail in result.output
    assert "--pooling final agrees" in result.output
    assert not written(weights)


def test_a_text_that_cannot_be_tokenized_is_named(weights: Path, own: Any) -> None:
    np.savez(weights.parent / "own.npz", sequences=np.array(["C", "", *MOLECULES[2:]]), vectors=own)
    result = export(weights)
    assert result.exit_code == 1
    assert "own.npz: row 1, '': " in result.output


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"vectors": np.zeros((2, 6))}, "is not np.savez('own.npz', sequences="),
        ({"sequences": np.array(["C", None]), "vectors": np.zeros((2, 6))}, "is not np.savez('own.npz', sequences="),
        ({"sequences": np.array([1, 2]), "vectors": np.zeros((2, 6))}, "`sequences` is int64 [2], not texts [n]"),
        ({"sequences": np.array([], str), "vectors": np.zeros((0, 6))}, "`sequences` is <U1 [0], not texts [n]"),
        ({"sequences": np.array(["C"]), "vectors": np.zeros((2, 6))}, "`vectors` is float64 [2, 6], not floats [1, D]"),
        ({"sequences": np.array(["C"]), "vectors": np.full((1, 6), np.nan)}, "`vectors` holds NaN or infinity"),
    ],
)
def test_a_file_of_something_else_is_refused(weights: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(weights.parent / "own.npz", **arrays)
    result = export(weights)
    assert result.exit_code == 1
    assert message in result.output
    assert not written(weights)


def test_a_file_that_is_no_npz_is_refused(weights: Path) -> None:
    (weights.parent / "own.npz").write_bytes(b"PK\x03\x04 cut off")
    result = export(weights)
    assert result.exit_code == 1
    assert "own.npz: is not np.savez(" in result.output
    np.save(weights.parent / "own.npy", np.zeros(3))
    (weights.parent / "own.npy").rename(weights.parent / "own.npz")
    assert "own.npz: is not np.savez(" in export(weights).output


def test_features_have_no_texts(tmp_path: Path) -> None:
    torch.save(nn.GRU(3, 4, bidirectional=True).state_dict(), tmp_path / "model.pt")
    np.savez(tmp_path / "own.npz", sequences=np.array(["C"]), vectors=np.zeros((1, 8)))
    words = ["export", "model.pt", "-o", "models/mine/1", "--expect", "own.npz", "--pooling", "final"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "own.npz: holds texts, and the encoder reads float features" in result.output


def test_small_vectors_are_compared_with_their_own_size(weights: Path, own: Any) -> None:
    """A difference of 1e-5 is nothing for vectors of about 1, and everything for those of about 1e-5."""
    np.savez(weights.parent / "own.npz", sequences=np.array(MOLECULES), vectors=own + 1e-5)
    assert export(weights, "final").exit_code == 0
    small = Model(nn.GRU)
    for parameter in small.encoder.parameters():
        parameter.data *= 1e-5
    torch.save(small.state_dict(), weights)
    vectors = small.vectors(rows_of(TOKENIZER.tokenize(MOLECULES, 50).batch))
    np.savez(weights.parent / "own.npz", sequences=np.array(MOLECULES), vectors=-3 * vectors)
    assert "is off by" in export(weights, "final").output


def test_bytes_that_are_no_text_are_refused(weights: Path, own: Any) -> None:
    np.savez(weights.parent / "own.npz", sequences=np.array([b"\xff\xfe"] * len(own)), vectors=own)
    assert "holds bytes that are not UTF-8" in export(weights, "final").output
