import csv
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pyarrow.parquet
import pytest

from tests.client.cli.encode import encode
from tests.client.fake_service import DIMENSION, MAX_LENGTH, TOKEN_DIMENSION, Failure, FakeService, matrix, vector


def molecules(folder: Path, count: int = 100, bad: tuple[int, ...] = ()) -> list[str]:
    """Write a file of molecules with bad ones at some lines, counted from 1."""
    sequences = [f"C!{line}" if line in bad else f"C{line}" for line in range(1, count + 1)]
    (folder / "molecules.smi").write_text("".join(f"{sequence} name\n" for sequence in sequences))
    return sequences


def test_sequences_are_shown_abridged(folder: Path) -> None:
    done = encode("CCO", "c1ccccc1")
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert first.startswith(f"CCO\t[{DIMENSION}]\t{vector('CCO')[0]:.4f} ")
    assert first.endswith(" ...")
    assert second.startswith("c1ccccc1\t")


def test_json_is_complete(folder: Path) -> None:
    done = encode("CCO", "C!", "--format", "json")
    assert done.exit_code == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["line"], first["sequence"]) == (1, "CCO")
    np.testing.assert_array_equal(np.array(first["embedding"], np.float32), vector("CCO"))
    assert second["error"] == {"code": "UNKNOWN_CHARACTERS", "reason": "cannot read '!'"}
    assert "line 2: cannot read '!': 'C!'" in done.stderr


def test_tokens_as_json_are_rows_of_floats(folder: Path) -> None:
    done = encode("CCO", "--tokens", "--format", "json")
    np.testing.assert_array_equal(np.array(json.loads(done.stdout)["embedding"], np.float32), matrix("CCO"))


def test_csv_is_complete(folder: Path) -> None:
    done = encode("C,O", "", "--format", "csv")
    assert done.exit_code == 1
    header, first, second = csv.reader(io.StringIO(done.stdout))
    columns = ["line", "sequence", "error", "unknown_tokens", "truncated_tokens"]
    assert header == [*columns, *(f"e{index}" for index in range(DIMENSION))]
    np.testing.assert_array_equal(np.array(first[5:], np.float32), vector("C,O"))
    assert second == ["2", "", "the sequence is empty", "0", "0", *[""] * DIMENSION]


def test_npy_rows_are_aligned_with_the_lines(folder: Path) -> None:
    sequences = molecules(folder, 1000, bad=(1, 500, 1000))
    done = encode("--file", "molecules.smi", "--out", "vectors.npy", "--batch-size", "16")
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    assert vectors.shape == (1000, DIMENSION)
    assert np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist() == [0, 499, 999]
    good = [index for index, sequence in enumerate(sequences) if "!" not in sequence]
    np.testing.assert_array_equal(vectors[good], [vector(sequences[index]) for index in good])
    assert "line 500: cannot read '!': 'C!500'" in done.stderr
    assert "1,000 sequences, 3 failed" in done.stderr
    assert "smiles version 10 -> vectors.npy" in done.stderr


def test_npz_holds_lines_and_failures(folder: Path) -> None:
    sequences = molecules(folder, 50, bad=(7,))
    assert encode("--file", "molecules.smi", "--out", "v.npz", "--batch-size", "16").exit_code == 1
    with np.load(folder / "v.npz") as arrays:
        assert arrays["line"].tolist() == list(range(1, 51))
        assert arrays["failed"].tolist() == [6]
        assert arrays["reason"].tolist() == ["cannot read '!'"]
        assert (str(arrays["encoder"]), str(arrays["version"])) == ("smiles", "10")
        np.testing.assert_array_equal(arrays["embeddings"][49], vector(sequences[49]))
    assert sorted(os.listdir(folder)) == ["molecules.smi", "v.npz"]


def test_npz_holds_tokens_by_offsets(folder: Path) -> None:
    sequences = molecules(folder, 50, bad=(7,))
    assert encode("--file", "molecules.smi", "--out", "v.npz", "--tokens").exit_code == 1
    with np.load(folder / "v.npz") as arrays:
        tokens, offsets = arrays["tokens"], arrays["offsets"]
    assert offsets[7] == offsets[6]
    assert len(offsets) == 51
    for index in (0, 5, 8, 49):
        np.testing.assert_array_equal(tokens[offsets[index] : offsets[index + 1]], matrix(sequences[index]))


def test_parquet_has_null_where_a_line_failed(folder: Path) -> None:
    sequences = molecules(folder, 100, bad=(7, 100))
    assert encode("--file", "molecules.smi", "--out", "v.parquet", "--batch-size", "16").exit_code == 1
    table = pyarrow.parquet.read_table(folder / "v.parquet")
    assert table.column_names == ["line", "sequence", "embedding", "error", "unknown_tokens", "truncated_tokens"]
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<")
    assert table.schema.metadata[b"encoder"] == b"smiles"
    assert table["line"].to_pylist() == list(range(1, 101))
    assert table["sequence"].to_pylist() == sequences
    rows, errors = table["embedding"].to_pylist(), table["error"].to_pylist()
    for index, sequence in enumerate(sequences):
        if "!" in sequence:
            assert rows[index] is None
            assert errors[index] == "cannot read '!'"
        else:
            np.testing.assert_array_equal(np.array(rows[index], np.float32), vector(sequence))
            assert errors[index] is None


def test_parquet_holds_tokens(folder: Path) -> None:
    sequences = molecules(folder, 30, bad=(2,))
    assert encode("--file", "molecules.smi", "--out", "v.parquet", "--tokens").exit_code == 1
    rows = pyarrow.parquet.read_table(folder / "v.parquet")["embedding"].to_pylist()
    assert rows[1] is None
    np.testing.assert_array_equal(np.array(rows[29], np.float32), matrix(sequences[29]))
    assert np.array(rows[0]).shape == (2, TOKEN_DIMENSION)


def test_parquet_is_written_in_row_groups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birnn.vector_files.parquet_file.ROW_GROUP_BYTES", 1000)
    molecules(folder, 100)
    assert encode("--file", "molecules.smi", "--out", "v.parquet", "--batch-size", "16").exit_code == 0
    file = pyarrow.parquet.ParquetFile(folder / "v.parquet")
    assert (file.metadata.num_rows, file.num_row_groups > 1) == (100, True)


def test_csv_file(folder: Path) -> None:
    sequences = molecules(folder, 40, bad=(3,))
    assert encode("--file", "molecules.smi", "--out", "v.csv").exit_code == 1
    with (folder / "v.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sequence"] for row in rows] == sequences
    assert (rows[2]["error"], rows[2]["e0"]) == ("cannot read '!'", "")
    assert np.float32(rows[39]["e7"]) == vector(sequences[39])[7]


def test_blank_lines_and_bytes_that_are_not_utf8_keep_their_rows(folder: Path) -> None:
    (folder / "a.smi").write_bytes(b"C\n\n\xff\xfe\nCC\n")
    done = encode("--file", "a.smi", "--out", "v.npy", "--errors", "bad.tsv")
    assert done.exit_code == 1
    assert np.isnan(np.load(folder / "v.npy")[:, 0]).tolist() == [False, True, True, False]
    rows = (folder / "bad.tsv").read_text().splitlines()
    assert rows == [
        "line\tcode\treason\tsequence",
        "2\tEMPTY\tthe sequence is empty\t",
        "3\tNOT_UTF8\tnot UTF-8\t\\xff\\xfe",
    ]
    assert "all failed lines: bad.tsv" in done.stderr


def test_only_the_first_failed_lines_are_shown(folder: Path) -> None:
    molecules(folder, 30, bad=tuple(range(1, 31)))
    done = encode("--file", "molecules.smi", "--out", "v.npy")
    assert done.stderr.count("cannot read") == 10
    assert "and 20 more failed lines; --errors FILE.tsv lists all" in done.stderr


def test_standard_input_of_a_smiles_encoder_is_smi_and_of_others_txt(folder: Path, service: FakeService) -> None:
    assert encode("--file", "-", "--out", "a.npy", stdin=b"CCO name\nC\n").exit_code == 0
    np.testing.assert_array_equal(np.load(folder / "a.npy"), [vector("CCO"), vector("C")])
    assert encode("--file", "-", "--out", "b.npy", "--encoder", "text", stdin=b"a sentence\n").exit_code == 0
    np.testing.assert_array_equal(np.load(folder / "b.npy"), [vector("a sentence")])
    assert (
        encode("--file", "-", "--kind", "csv", "--column", "s", "--out", "c.npy", stdin=b"n,s\n1,CC\n").exit_code == 0
    )
    np.testing.assert_array_equal(np.load(folder / "c.npy"), [vector("CC")])


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.csv.xz"])
def test_columns_of_plain_and_compressed_files(folder: Path, name: str) -> None:
    content = b"name,smiles\nethanol,CCO\nmethane,C\n"
    content = content.replace(b",", b"\t") if "tsv" in name else content
    if name.endswith(".gz"):
        content = gzip.compress(content)
    if name.endswith(".xz"):
        content = lzma.compress(content)
    (folder / name).write_bytes(content)
    for out in ("v.npy", "v.csv", "v.parquet"):
        done = encode("--file", name, "--column", "smiles", "--out", out)
        assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(np.load(folder / "v.npy"), [vector("CCO"), vector("C")])


def test_an_empty_file_gives_no_rows(folder: Path) -> None:
    (folder / "a.smi").write_bytes(b"")
    for name in ("v.npy", "v.npz", "v.parquet", "v.csv"):
        assert encode("--file", "a.smi", "--out", name).exit_code == 0
    assert np.load(folder / "v.npy").shape == (0, DIMENSION)
    assert np.load(folder / "v.npz")["embeddings"].shape == (0, DIMENSION)
    assert pyarrow.parquet.read_table(folder / "v.parquet").num_rows == 0


def test_long_sequences_can_be_cut(folder: Path) -> None:
    assert encode("C" * (MAX_LENGTH + 1)).exit_code == 1
    assert encode("C" * (MAX_LENGTH + 1), "--truncate").exit_code == 0


def test_encodings_can_travel_as_float16(folder: Path) -> None:
    assert encode("CCO", "--element-type", "float16", "--out", "half.npy").exit_code == 0
    assert encode("CCO", "--out", "whole.npy").exit_code == 0
    half, whole = np.load(folder / "half.npy"), np.load(folder / "whole.npy")
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, whole.astype(np.float16))
    assert (half != whole).any()


@pytest.mark.parametrize("name", ["v.npy", "v.npz", "v.parquet", "v.csv"])
def test_a_failure_leaves_no_file_and_the_old_one_as_it_was(folder: Path, service: FakeService, name: str) -> None:
    molecules(folder)
    (folder / name).write_text("old")
    service.failures.extend([Failure(grpc.StatusCode.INTERNAL, "broken")] * 9)
    done = encode("--file", "molecules.smi", "--out", name, "--errors", "bad.tsv")
    assert done.exit_code == 3
    assert "Error: the call to" in done.stderr
    assert "broken" in done.stderr
    assert (folder / name).read_text() == "old"
    assert sorted(os.listdir(folder)) == sorted([name, "molecules.smi"])


def test_a_damaged_file_leaves_no_output(folder: Path) -> None:
    (folder / "a.smi.xz").write_bytes(lzma.compress(b"CCO\n" * 1000)[:-10])
    done = encode("--file", "a.smi.xz", "--out", "v.npy")
    assert done.exit_code == 3
    assert "damaged or cut off" in done.stderr
    assert os.listdir(folder) == ["a.smi.xz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either SEQUENCES or --file"),
        (("CCO", "--file", "-"), "give either SEQUENCES or --file"),
        (("CCO", "--column", "a"), "go with --file"),
        (("CCO", "--out", "v.bin"), "unknown format '.bin'; use .npy, .npz, .parquet, .csv"),
        (("CCO", "--out", "v.npy", "--tokens"), "use .npz, .parquet"),
        (("CCO", "--format", "csv", "--tokens"), "does not fit into csv"),
        (("CCO", "--out", "nowhere/v.npy"), "the folder nowhere does not exist"),
        (("CCO", "--address", "localhost"), "write HOST:PORT"),
        (("CCO", "--batch-size", "0"), "--batch-size"),
        (("CCO", "--timeout", "0"), "--timeout"),
    ],
)
def test_wrong_usage_is_explained(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = encode(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CCO", "--address", "127.0.0.1:1"), "start one with `birnn serve`"),
        (("CCO", "--encoder", "smile"), "'smile' is not served at"),
        (("CCO", "--version", "9"), "version 9 is not served at"),
        (("--file", "missing.smi"), "missing.smi: No such file"),
    ],
)
def test_what_cannot_be_done_is_explained(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = encode(*arguments)
    assert done.exit_code == 3
    assert message in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_parquet_without_pyarrow_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = encode("CCO", "--out", "v.parquet")
    assert done.exit_code == 3
    assert "pip install 'birnn-serving[bulk]'" in done.stderr


def test_the_command_works_from_a_shell(folder: Path) -> None:
    command = [sys.executable, "-m", "birnn.cli.main", "encode", "--file", "-", "--format", "csv"]
    done = subprocess.run(command, input=b"CCO\nC!\n", capture_output=True)
    assert done.returncode == 1
    assert done.stdout.decode().splitlines()[1].startswith("1,CCO,,")
    assert b"Traceback" not in done.stderr
