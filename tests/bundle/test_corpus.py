"""Corpus files of every format, and what is said about broken ones."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from birnn_bundle.corpus import ScoredPair, read_corpus, read_entry, read_pairs, split_file_and_column, split_sentences
from birnn_bundle.sequences import SequenceFileError


def test_smi_takes_the_first_white_space_column(tmp_path: Path) -> None:
    file = tmp_path / "a.smi"
    file.write_text("CCO ethanol\nc1ccccc1\tbenzene |CXSMILES|\n\n   \nO\r\n")
    assert read_corpus(file).sequences == ["CCO", "c1ccccc1", "O"]


def test_txt_takes_whole_lines_and_skips_blank_ones(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("One line. \n\n \nÜber two\n", encoding="utf-8")
    assert read_corpus(file).sequences == ["One line.", "Über two"]


def test_csv_column_by_name_or_number(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('id,smiles\n1,CCO\n2,"C,C"\n3,\n')
    assert read_corpus(file, "smiles").sequences == ["CCO", "C,C"]
    assert read_corpus(file, "2").sequences == ["smiles", "CCO", "C,C"]


def test_tsv_keeps_lone_quotation_marks(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text('1\t"A man\n2\tA "plane" is\n')
    assert read_corpus(file, "2").sequences == ['"A man', 'A "plane" is']


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_files_read_like_plain_ones(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    file = tmp_path / f"a.smi{suffix}"
    file.write_bytes(compress(b"CCO x\nCC\n"))
    assert read_corpus(file).sequences == ["CCO", "CC"]
    assert read_corpus(file, limit=1).sequences == ["CCO"]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_cut_off_archives_are_named(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    file = tmp_path / f"a.smi{suffix}"
    file.write_bytes(compress(bytes(range(33, 127)) * 400)[:-12])
    with pytest.raises(SequenceFileError, match="damaged or cut off"):
        read_corpus(file)


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.sdf", b"CC\n", None, r"cannot tell from the name .* \.smi, \.txt"),
        ("a.csv", b"a,b\nCC,1\n", None, "name the column that holds the sequences; it has a, b"),
        ("a.csv", b"smiles,x\nCC,1\n", "smile", "has no column 'smile'; it has smiles, x"),
        (
            "a.csv",
            b"a,b\n1\n",
            "b",
            "left out 1 line .* line 2: the record has 1 of 2 fields",
        ),
        ("a.csv", b"a\n1\n", "0", "has columns 1 to 1, not 0"),
        ("a.smi", b"CC\n", "x", "has no columns"),
        ("a.smi", b"\n \n", None, "holds no sequence"),
        ("a.smi", b"C\xff\xfe\n", None, "line 1: not UTF-8"),
        ("a.smi.gz", b"CC\n", None, "damaged or cut off"),
        ("a.smi.xz", b"CC\n", None, "damaged or cut off"),
    ],
)
def test_errors_name_the_file_and_the_fault(
    tmp_path: Path, name: str, content: bytes, column: str | None, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SequenceFileError, match=message) as caught:
        read_corpus(file, column)
    assert str(file) in str(caught.value)


def test_missing_file_and_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SequenceFileError, match="No such file"):
        read_corpus(tmp_path / "none.smi")
    (tmp_path / "folder.smi").mkdir()
    with pytest.raises(SequenceFileError, match="is a folder"):
        read_corpus(tmp_path / "folder.smi")


def test_file_and_column_are_taken_apart() -> None:
    assert split_file_and_column("data/a.csv:smiles") == (Path("data/a.csv"), "smiles")
    assert split_file_and_column("data/a.smi") == (Path("data/a.smi"), None)
    assert split_file_and_column("odd:folder/a.smi") == (Path("odd:folder/a.smi"), None)


def test_sentences_end_before_a_capital() -> None:
    assert split_sentences("It was 3.5 m. He left! Why? e.g. this.") == ["It was 3.5 m.", "He left!", "Why? e.g. this."]
    assert split_sentences("One only") == ["One only"]


def test_pairs_are_read_by_number_or_by_name(tmp_path: Path) -> None:
    plain = tmp_path / "pairs.tsv"
    plain.write_text('x\t5.0\tA "man\tA man.\nx\t0\t One \tTwo\n')
    assert read_pairs(f"{plain}:2:3:4") == [ScoredPair('A "man', "A man.", 5.0), ScoredPair("One", "Two", 0.0)]
    named = tmp_path / "pairs.csv.gz"
    named.write_bytes(gzip.compress(b'b,a,how\n"C, D",A,0.5\n'))
    assert read_pairs(f"{named}:how:a:b") == [ScoredPair("A", "C, D", 0.5)]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", "1\tA\tB\n", "1:2", "is not FILE:SCORE:FIRST:SECOND"),
        ("a.txt", "1 A B\n", "1:2:3", "has no columns to take pairs from"),
        ("a.tsv", "1\tA\tB\nhigh\tC\tD\n", "1:2:3", "line 2: the score must be a number, not 'high'"),
        ("a.tsv", "nan\tA\tB\n", "1:2:3", "line 1: the score must be a number"),
        ("a.tsv", "1\tA\t \n", "1:2:3", "line 1: the pair lacks a sequence"),
        ("a.tsv", "1\tA\n", "1:2:3", "has columns 1 to 2, not 3"),
        ("a.tsv", "", "1:2:3", "holds no pair"),
    ],
)
def test_pairs_that_cannot_be_read_are_explained(
    tmp_path: Path, name: str, content: str, columns: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(SequenceFileError, match=message):
        read_pairs(f"{file}:{columns}")


def test_lines_that_cannot_be_read_are_left_out_and_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"id,smiles\n1,CCO\n2\n3,CC\n4,C\xff\x1b[2J\n" + b"5\n" * 10)
    assert read_entry(f"{file}:smiles") == ["CCO", "CC"]
    told = capsys.readouterr().err
    assert "left out 12 lines without a readable sequence: line 3: the record has 1 of 2 fields" in told
    assert "line 5: not UTF-8" in told
    assert "and 7 more" in told
    assert read_entry(f"{file}:smiles", limit=1) == ["CCO"]
    assert capsys.readouterr().err == ""
