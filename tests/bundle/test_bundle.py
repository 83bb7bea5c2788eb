"""A bundle is read once, within bounds, and never anything but regular files inside its folder."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from birnn_bundle.bundle import Bundle
from birnn_bundle.errors import BundleError, ItemError, ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import Tokenized, within_vocabulary

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(MODELS / "smiles-small" / "1", tmp_path / "1")


def test_a_bundle_keeps_the_bytes_of_its_graphs_and_weights_and_of_nothing_that_was_parsed(folder: Path) -> None:
    expected = {name: (folder / name).read_bytes() for name in ("pooled.onnx", "tokens.onnx", "weights.bin")}
    found = Bundle.load(folder).files
    assert {name: found[name] for name in expected} == expected
    assert not {"golden.safetensors", "tokenizer.json"} & found.keys()


def test_more_than_the_limit_is_not_read_and_the_error_names_the_setting(folder: Path) -> None:
    os.truncate(folder / "weights.bin", 1 << 40)
    with pytest.raises(BundleError, match=r"weights\.bin has 1099511627776 bytes, .* 8 MiB\).*--max-bundle-mib"):
        Bundle.load(folder, max_bytes=8 << 20)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "weights.bin"])
def test_a_fifo_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleError, match=f"{name} is not a regular file"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin"])
def test_a_link_out_of_the_folder_is_refused_even_to_the_same_content(folder: Path, name: str) -> None:
    shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(BundleError, match=f"{name} is a link to a place outside"):
        Bundle.load(folder)


def test_ids_beyond_the_vocabulary_fail_their_sequences_alone() -> None:
    zeros = np.zeros(3, dtype=np.int64)
    too_long = ItemError(1, ItemErrorCode.TOO_LONG, "too long")
    batch = RaggedBatch.from_lists([[1, 2], [1, 10, 3], [9]])
    given = Tokenized(batch, np.array([0, 2, 3]), zeros, zeros, [too_long])
    assert within_vocabulary(given, 11) is given
    found = within_vocabulary(given, 10)
    assert found.rows.tolist() == [0, 3]
    assert found.batch.ids.tolist() == [1, 2, 9]
    assert [(error.index, error.code) for error in found.errors] == [
        (1, ItemErrorCode.TOO_LONG),
        (2, ItemErrorCode.UNKNOWN_CHARACTERS),
    ]
    assert within_vocabulary(
        Tokenized(RaggedBatch.from_lists([[-1]]), np.array([0]), zeros[:1], zeros[:1], []), 10
    ).errors
