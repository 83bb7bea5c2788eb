import gzip
import io
import lzma
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birnn_bundle.sequences import Kind, SequenceFile, SequenceFileError


def read(path: Path, kind: Kind | None = None, column: str | None = None) -> list[tuple[int, bytes]]:
    with SequenceFile(path, kind, column) as file:
        return [(line.number, line.sequence) for line in file]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_smi_takes_the_first_column_and_keeps_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.smi", b"CCO ethanol\n\nC\tmethane\r\n  N  \nO")
    assert read(path) == [(1, b"CCO"), (2, b""), (3, b"C"), (4, b"N"), (5, b"O")]


def test_txt_takes_whole_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.TXT", b" a b \r\n\nc\xff\n")
    assert read(path) == [(1, b" a b "), (2, b""), (3, b"c\xff")]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=20).filter(lambda raw: not {*b"\n\r\0"} & {*raw}), max_size=20))
def test_any_lines_come_back_as_they_are(tmp_path: Path, lines: list[bytes]) -> None:
    # First a line that no mark of an encoding or of an archive can be taken for.
    lines = [b"plain", *lines]
    path = write(tmp_path, "a.txt", b"".join(line + b"\n" for line in lines))
    assert [sequence for _, sequence in read(path)] == lines


@pytest.mark.parametrize("kind", ["smi", "txt", "csv"])
def test_a_byte_order_mark_is_no_part_of_the_first_sequence(tmp_path: Path, kind: Kind) -> None:
    path = write(tmp_path, f"a.{kind}", b"\xef\xbb\xbftext\nb\n")
    assert [sequence for _, sequence in read(path)] == ([b"b"] if kind == "csv" else [b"text", b"b"])


def test_csv_takes_a_named_column_with_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b'name,smiles\n"x, y",CCO\n\n"two\nlines",C\nz,\nw,\xff\n')
    assert read(path, column="smiles") == [(2, b"CCO"), (5, b"C"), (6, b""), (7, b"\xff")]


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", b'score\tsentence\n1\t"quoted\n2\tplain\n')
    assert read(path, column="sentence") == [(2, b'"quoted'), (3, b"plain")]


def test_the_only_column_needs_no_name(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.csv", b"smiles\nCCO\n")) == [(2, b"CCO")]


def test_compressed_files_are_decompressed(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.smi.gz", gzip.compress(b"CCO\nC\n"))) == [(1, b"CCO"), (2, b"C")]
    assert read(write(tmp_path, "a.csv.xz", lzma.compress(b"s,t\nCCO,1\n")), column="s") == [(2, b"CCO")]
    assert read(write(tmp_path, "a.bin.xz", lzma.compress(b"CCO\n")), kind="txt") == [(1, b"CCO")]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"CCO x\nC\n")))
    with SequenceFile(None, "smi") as file:
        assert [line.sequence for line in file] == [b"CCO", b"C"]
        assert file.fraction() is None


@pytest.mark.parametrize("name", ["a.smi", "a.csv", "a.tsv"])
def test_the_share_that_was_read_reaches_one(tmp_path: Path, name: str) -> None:
    with SequenceFile(write(tmp_path, name, b"smiles\n" + b"CCO\n" * 100_000)) as file:
        lines = iter(file)
        next(lines)
        first = file.fraction()
        assert sum(1 for _ in lines) >= 99_999
        del lines
        assert first is not None
        assert first < 1.0
        assert file.fraction() == 1.0


def test_an_empty_file_has_no_sequences(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.smi", b"")) == []


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.smi", None, None, "No such file"),
        ("a.bin", b"", None, r"cannot tell .* \.smi, \.txt"),
        ("a.smi", b"C\n", "smiles", "no columns, and so no column 'smiles'"),
        ("a.csv", b"a,b\n1,2\n", None, "name the column .* a, b"),
        ("a.csv", b"a,b\n1,2\n", "c", "no column 'c'; it has a, b"),
        ("a.csv", b"", "c", "the file is empty"),
        ("a.smi.gz", gzip.compress(b"CCO\n" * 100, mtime=0)[:-12], None, "damaged or cut off"),
        ("a.smi.gz", b"CCO\n", None, "damaged or cut off"),
        ("a.smi.xz", lzma.compress(b"CCO\n" * 100)[:-12], None, "damaged or cut off"),
        ("a.smi.xz", b"CCO\n", None, "damaged or cut off"),
    ],
)
def test_what_cannot_be_read_is_explained(
    tmp_path: Path, name: str, content: bytes | None, column: str | None, message: str
) -> None:
    path = tmp_path / name if content is None else write(tmp_path, name, content)
    with pytest.raises(SequenceFileError, match=message):
        read(path, column=column)
