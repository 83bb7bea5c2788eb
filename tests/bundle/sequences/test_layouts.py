"""Files as people and programs write them: every line is read, or something is said."""

import gzip
import lzma
import os
import socket
from pathlib import Path

import pyarrow as pa
import pytest

from birnn_bundle.sequences import Line, SequenceFile, SequenceFileError
from birnn_bundle.sequences.text_source import LONGEST_LINE


def read(
    folder: Path, name: str, content: bytes, column: str | None = None, header: bool | None = None, delimiter: str = ""
) -> list[Line]:
    path = folder / name
    path.write_bytes(content)
    with SequenceFile(path, column=column, header=header, delimiter=delimiter or None) as file:
        return list(file)


def sequences(lines: list[Line]) -> list[bytes]:
    return [line.sequence for line in lines]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_with_lf_cr_lf_or_cr(tmp_path: Path, end: bytes) -> None:
    rows = [b"CCO a", b"", b"c1ccccc1 b", b"CCN c"]
    for content in (end.join([*rows, b""]), end.join(rows)):
        assert sequences(read(tmp_path, "a.smi", content)) == [b"CCO", b"", b"c1ccccc1", b"CCN"]
        assert sequences(read(tmp_path, "a.txt", content)) == rows
        table = read(tmp_path, "a.csv", b"text" + end + content, "text")
        assert sequences(table) == [b"CCO a", b"c1ccccc1 b", b"CCN c"]
        assert [line.number for line in table] == [2, 4, 5]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    content = "the cat\nein Maß\r\n猫\n".encode(encoding)
    found = read(tmp_path, name, gzip.compress(content) if name.endswith(".gz") else content)
    assert sequences(found) == [b"the cat", "ein Maß".encode(), "猫".encode()]


def test_what_utf_16_cannot_say_costs_one_line(tmp_path: Path) -> None:
    lines = read(tmp_path, "a.txt", b"\xff\xfe" + "a\n\ud800\nb\n".encode("utf-16-le", "surrogatepass"))
    assert sequences(lines) == [b"a", b"\xed\xa0\x80", b"b"]
    with pytest.raises(UnicodeDecodeError):
        lines[1].sequence.decode()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_recognized(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(SequenceFileError, match=f"looks like UTF-16 .*iconv -f {encoding.upper()[:6]}"):
        read(tmp_path, "a.txt", "the cat sat\nein Maß\n".encode(encoding))


def test_utf_16_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SequenceFileError, match="not valid utf-16"):
        read(tmp_path, "a.txt", "the cat\nsat".encode("utf-16")[:-1])


def test_an_unclosed_quotation_mark_is_named_with_its_line(tmp_path: Path) -> None:
    content = b'text,y\nfirst,1\n"it is fine,1\nsecond line,0\nthird,1\n'
    with pytest.raises(SequenceFileError, match="line 3: opens a quotation mark that is never closed"):
        read(tmp_path, "a.csv", content, "text")


def test_quotation_marks_that_do_not_match_are_named_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(SequenceFileError, match="line 2: quotation marks do not match"):
        read(tmp_path, "a.csv", b'text,y\n"it is" fine,1\n', "text")
    # Within a field that is not quoted they are only letters.
    assert sequences(read(tmp_path, "a.csv", b'text,y\na 5" pipe,1\n', "text")) == [b'a 5" pipe']


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_whether_the_only_column_has_a_header_is_asked(tmp_path: Path, name: str) -> None:
    content = b"CCO\nc1ccccc1\nCC(=O)O\n"
    with pytest.raises(SequenceFileError, match=r"its first line is 'CCO': .*--column.*--no-header.*FILE:1"):
        read(tmp_path, name, content)
    assert sequences(read(tmp_path, name, content, header=False)) == [b"CCO", b"c1ccccc1", b"CC(=O)O"]
    assert sequences(read(tmp_path, name, content, header=True)) == [b"c1ccccc1", b"CC(=O)O"]
    assert sequences(read(tmp_path, name, content, "CCO")) == [b"c1ccccc1", b"CC(=O)O"]
    assert sequences(read(tmp_path, name, b"Smiles\n" + content)) == [b"CCO", b"c1ccccc1", b"CC(=O)O"]


def test_without_a_header_columns_have_numbers(tmp_path: Path) -> None:
    content = b"1,CCO\n2,C\n"
    assert sequences(read(tmp_path, "a.csv", content, "2", header=False)) == [b"CCO", b"C"]
    for column, message in ((None, "has 2 columns; give the number"), ("3", "1 to 2, not 3"), ("²", "not '²'")):
        with pytest.raises(SequenceFileError, match=message):
            read(tmp_path, "a.csv", content, column, header=False)
    with pytest.raises(SequenceFileError, match=r"no column '2'; it has 1, CCO; a column's number needs .*--no-header"):
        read(tmp_path, "a.csv", content, "2")


def test_another_delimiter_is_seen_or_asked_for(tmp_path: Path) -> None:
    content = b"review;label\nthe cat, sat;1\n"
    assert sequences(read(tmp_path, "a.csv", content, "review")) == [b"the cat, sat"]
    assert sequences(read(tmp_path, "a.csv", content, "review", delimiter=";")) == [b"the cat, sat"]
    for column in (None, "text"):
        with pytest.raises(SequenceFileError, match=r"no comma in its first line but ';'.*--delimiter"):
            read(tmp_path, "a.csv", content, column)
    # A single column may hold anything, once it is said to be one.
    assert sequences(read(tmp_path, "a.csv", b"a; b\nc\n", header=False, delimiter=",")) == [b"a; b", b"c"]
    assert sequences(read(tmp_path, "a.csv", b"a; b\nc\n", "a; b")) == [b"c"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SequenceFileError, match="has 2 columns 'smiles'"):
        read(tmp_path, "a.csv", b"smiles,smiles,y\nCCO,CCC,1\n", "smiles")
    assert sequences(read(tmp_path, "a.csv", b"smiles,smiles,y\nCCO,CCC,1\n", "y")) == [b"1"]


def test_a_malformed_record_costs_one_row(tmp_path: Path) -> None:
    content = b"id,smiles\n1,CCO\n2\n3,CCC\n4,C,C\n5,CN,,\n"
    assert read(tmp_path, "a.csv", content, "smiles") == [
        Line(2, b"CCO"),
        Line(3, b"", "the record has 1 of 2 fields"),
        Line(4, b"CCC"),
        Line(
            5,
            b"",
            "the record has 3 fields and the header 2; a field with a delimiter in it must stand in quotation marks",
        ),
        Line(6, b"CN"),
    ]
    # A record that was cut off is no shorter sequence.
    assert read(tmp_path, "a.csv", b"smiles,y\nCCO,1\nCC", "smiles")[1].problem == "the record has 1 of 2 fields"
    assert read(tmp_path, "a.csv", b"1,a\n2\n", "2", header=False)[1].problem is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04\x1b[31mRED\x1b[0m,x\n1,2\n", "ZIP file, as Excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(50), "old Excel"),
        (b"PAR1\x15\x04\x15", "Parquet"),
        (b"BZh91AY&SY\x00", "bzip2"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.smi", "a.txt.xz"])
def test_what_is_not_text_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(SequenceFileError, match=f"is not text but .*{message}"):
        read(tmp_path, name, lzma.compress(content) if name.endswith(".xz") else content)


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    zstandard = pa.compress(b"CCO\n", "zstd", asbytes=True)
    assert sequences(read(tmp_path, "a.smi", gzip.compress(b"CCO\n"))) == [b"CCO"]
    assert sequences(read(tmp_path, "a.smi.gz", zstandard)) == [b"CCO"]
    # As `cat` and parallel compressors join them.
    assert sequences(read(tmp_path, "a.smi.zst", zstandard + zstandard)) == [b"CCO", b"CCO"]
    with pytest.raises(SequenceFileError, match=r"a\.smi\.zst: "):
        read(tmp_path, "a.smi.zst", zstandard[:-2])
    with pytest.raises(SequenceFileError, match="compressed twice"):
        read(tmp_path, "a.smi.xz", lzma.compress(zstandard))
    assert sequences(read(tmp_path, "a.smi.gz", lzma.compress(b"CCO\n"))) == [b"CCO"]
    with pytest.raises(SequenceFileError, match=r"ends in \.gz, but it is not a gzip file"):
        read(tmp_path, "a.smi.gz", b"")


@pytest.mark.parametrize(("suffix", "packed"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_no_flipped_bit_of_an_archive_goes_unseen(tmp_path: Path, suffix: str, packed: object) -> None:
    rows = b"".join(b"C" * (index % 50 + 1) + b"\n" for index in range(300))
    whole = packed(rows)  # type: ignore[operator]
    for position in range(12, len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        try:
            found = sequences(read(tmp_path, f"a.smi{suffix}", bytes(flipped)))
        except SequenceFileError:
            continue
        assert found == rows.split()
    for end in range(6, len(whole)):
        with pytest.raises(SequenceFileError):
            read(tmp_path, f"a.smi{suffix}", whole[:end])


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"C" * (LONGEST_LINE + 1)), ("a.csv", b"text\n" + b"C" * (LONGEST_LINE + 1))):
        with pytest.raises(SequenceFileError, match="longer than the limit of 16,777,216 characters"):
            read(tmp_path, name, content)
    quoted = b'text\n"' + (b"C" * 1000 + b"\n") * (LONGEST_LINE // 1001 + 1)
    with pytest.raises(SequenceFileError, match="line 2: a field is longer than the limit"):
        read(tmp_path, "a.csv", quoted)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.smi").mkdir()
    os.mkfifo(tmp_path / "pipe.smi")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.smi"))
        for name, message in (
            ("folder.smi", "is a folder"),
            ("pipe.smi", "is a named pipe"),
            ("socket.smi", "No such device"),
            ("none.smi", "No such file"),
        ):
            with pytest.raises(SequenceFileError, match=f"{name}: {message}"):
                SequenceFile(tmp_path / name)


def test_an_open_pipe_is_read(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"CCO x\rC\r")
    os.close(theirs)
    with SequenceFile(Path(f"/dev/fd/{ours}"), "smi") as file:
        assert sequences(list(file)) == [b"CCO", b"C"]
    os.close(ours)
