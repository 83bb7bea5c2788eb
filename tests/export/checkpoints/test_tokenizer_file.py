import json
import string
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from birnn_bundle.smiles import SmilesTokenizer
from birnn_bundle.text import TextTokenizer
from birnn_export.checkpoints.tokenizer_file import read_tokenizer
from birnn_export.training.checkpoint import CheckpointError


def ids(path: Path, text: str, **more: Any) -> list[int]:
    """Ids of one text."""
    row: list[int] = read_tokenizer(path, **more).tokenize([text], 100).batch.ids.tolist()
    return row


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vocab.json"


@pytest.mark.parametrize(
    ("content", "more"),
    [
        (["[PAD]", "[UNK]", "C", "O"], {}),
        (["[UNK]", "C", "O"], {"first_id": 1}),
        ({"C": 2, "O": 3, "[UNK]": 1}, {}),
        ({"2": "C", "3": "O", "1": "[UNK]"}, {}),
    ],
    ids=["list", "list from 1", "token to id", "id to token"],
)
def test_a_vocabulary_as_json_gives_its_ids(file: Path, content: Any, more: dict[str, Any]) -> None:
    file.write_text(json.dumps(content))
    assert ids(file, "COCN", split="smiles", **more) == [2, 3, 2, 1]


@pytest.mark.parametrize("content", ["[PAD]\n[UNK]\nC\nO\n", "[PAD]\r\n[UNK]\r\nC\r\nO", "O\t3\nC\t2\n[UNK]\t1\n"])
def test_a_token_a_line_gives_its_ids(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content.encode())
    assert ids(tmp_path / "vocab.txt", "COCN", split="smiles") == [2, 3, 2, 1]


def test_digits_are_tokens_where_the_values_are_ids(file: Path) -> None:
    file.write_text(json.dumps({"C": 0, "1": 2, "2": 1}))
    assert ids(file, "C12", split="characters") == [0, 2, 1]


def test_whole_tokenizers_of_this_project_and_of_hugging_face_are_recognized(file: Path) -> None:
    smiles = SmilesTokenizer(["C", "O"])
    file.write_text(smiles.to_json())
    assert read_tokenizer(file).kind == "smiles"
    file.write_text(TextTokenizer.train(["some text"], 270).to_json())
    assert read_tokenizer(file).kind == "text"
    backend = Backend(models.WordLevel({"a": 1, "[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    file.write_text(backend.to_str())
    assert read_tokenizer(file).kind == "huggingface"
    with pytest.raises(CheckpointError, match="is a whole tokenizer; --split"):
        read_tokenizer(file, split="words")


def test_how_a_text_is_cut_is_asked_for(file: Path) -> None:
    file.write_text('["C", "O"]')
    with pytest.raises(CheckpointError, match=r"a vocabulary of 2 tokens does .* --split smiles or characters"):
        read_tokenizer(file)


def test_tokens_around_a_sequence_are_asked_for_where_the_vocabulary_seems_to_have_them(file: Path) -> None:
    file.write_text('["[CLS]", "[SEP]", "C"]')
    with pytest.raises(CheckpointError, match=r"holds '\[CLS\]'; if training put it at the begin of each sequence"):
        read_tokenizer(file, split="smiles")
    with pytest.raises(CheckpointError, match=r"--end-token '\[SEP\]', else --end-token none"):
        read_tokenizer(file, split="smiles", begin="none")
    assert ids(file, "C", split="smiles", begin="none", end="none") == [2]
    assert ids(file, "C", split="smiles", begin="[CLS]", end="[SEP]") == [0, 2, 1]


def test_the_unknown_token_can_be_named_or_ruled_out(file: Path) -> None:
    file.write_text('["<unk>", "any", "C"]')
    assert ids(file, "CN", split="smiles") == [2, 0]
    assert ids(file, "CN", split="smiles", unknown="any") == [2, 1]
    assert read_tokenizer(file, split="smiles", unknown="none").tokenize(["CN"], 9).errors
    with pytest.raises(CheckpointError, match="the unknown token 'UNKNOWN' is not in the vocabulary"):
        read_tokenizer(file, split="smiles", unknown="UNKNOWN")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.json", "[1, 2", "is not JSON"),
        ("v.json", "3", "neither a tokenizer, nor a list of tokens"),
        ("v.json", "{}", "neither a tokenizer"),
        ("v.json", '{"0": "C", "1": "C"}', "one id a token"),
        ("v.json", '["C", "C"]', "a list of tokens, each of them once"),
        ("v.json", "[]", "a list of tokens"),
        ("v.txt", "", "a list of tokens"),
        ("v.txt", "C\tone\n", "one id a token"),
        ("v.json", '{"kind": "morse"}', "unknown tokenizer kind 'morse'"),
        ("v.json", '{"C": 1, "C": 2}', "'C' stands there more than once"),
        ("v.json", '{"C": 1, "\\ud800": 2}', "is half a character"),
        ("v.json", "[" * 10**5, "is not JSON"),
        ("v.txt", "C\t1\nC\t2\n", "'C' stands there more than once"),
        ("v.txt", "C\n\nO\n", "line 2 is empty, and tokens are numbered by line"),
        ("v.txt", "C 1\nO 2\n", "holds a token and a number, as 'C 1'; if it is the id, put a tab between"),
        ("v.txt", "C,1\nO,2", "holds a token and a number"),
        ("v.json", '{"model": {}}', "is not a tokenizer of the tokenizers library"),
    ],
)
def test_files_that_are_no_vocabulary_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer(tmp_path / name, split="smiles" if "kind" not in content and "model" not in content else None)


@pytest.mark.parametrize("name", ["v.txt", "v.json"])
def test_a_mark_of_the_byte_order_is_no_token(tmp_path: Path, name: str) -> None:
    content = '["C", "O"]' if name.endswith("json") else "C\nO\n\n"
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert ids(tmp_path / name, "CO", split="smiles") == [0, 1]


def test_characters_that_end_lines_elsewhere_are_tokens(file: Path) -> None:
    text = file.with_suffix(".txt")
    text.write_text("C\n\x0c\n\u2028\nO\n")
    assert ids(text, "C\x0c\u2028O", split="characters") == [0, 1, 2, 3]


def test_a_word_that_other_files_use_for_something_else_is_a_token(file: Path) -> None:
    file.write_text('{"the": 0, "model": 1, "kind": 2}')
    assert ids(file, "the model kind", split="words") == [0, 1, 2]


@pytest.mark.parametrize("pair", [("sos", "EOS"), ("^", "$"), ("<|startoftext|>", "<|endoftext|>")])
def test_further_tokens_around_a_sequence_are_asked_for(file: Path, pair: tuple[str, str]) -> None:
    file.write_text(json.dumps([*pair, "C"]))
    with pytest.raises(CheckpointError, match="if training put it at the begin of each sequence"):
        read_tokenizer(file, split="smiles")


def test_a_bond_of_order_four_is_no_end(file: Path) -> None:
    file.write_text('["$", "C"]')
    assert ids(file, "C$C", split="smiles") == [1, 0, 1]


def test_padding_without_a_name_has_the_first_id(tmp_path: Path) -> None:
    """As Keras' TextVectorization.get_vocabulary() gives it."""
    text = tmp_path / "v.txt"
    text.write_text("\n[UNK]\nC\nO\n")
    assert ids(text, "CON", split="characters") == [2, 3, 1]
    assert ids(text, "CON", split="characters", first_id=1) == [2, 3, 1]


def test_characters_and_words_are_not_taken_for_begin_and_end(file: Path) -> None:
    file.write_text(json.dumps(list(string.printable)))
    assert len(ids(file, "a^b$", split="characters")) == 4
    file.write_text('["an", "SOS", "call"]')
    assert ids(file, "an SOS call", split="words") == [0, 1, 2]
