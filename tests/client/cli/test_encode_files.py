"""`birnn encode` and files as people have them: each row is encoded or told of, and no input is ever lost."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from birnn_bundle.corpus import read_corpus
from birnn_bundle.sequences import SequenceFileError
from tests.client.cli.encode import encode
from tests.client.fake_service import MAX_LENGTH, FakeService, vector

FORMATS = ["v.npy", "v.npz", "v.parquet", "v.csv"]
COMMAND = [sys.executable, "-m", "birnn", "encode"]
# Runs a command whose files may have 20,000 bytes. A `preexec_fn` would run between fork and exec, where what gRPC does
# for a fork of this process, which serves, fails now and then.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
os.execv(sys.argv[1], sys.argv[1:])
"""


# Name, content, column, how many sequences there are, how many records are malformed.
READ = [
    ("cr.smi", b"CCO a\rc1ccccc1 b\rCCN c\r", None, 3, 0),
    ("cr.txt", b"first text\rsecond text\rthird text\r", None, 3, 0),
    ("bom.smi", b"\xef\xbb\xbfCCO\nCCC\n", None, 2, 0),
    ("bom.csv", b"\xef\xbb\xbfsmiles,y\nCCO,1\nCCC,2\n", "smiles", 2, 0),
    ("unknown.smi", "[13CH4]\n[N−]\n[Xx]\n".encode(), None, 3, 0),
    ("marked.txt", "the cat sat\na dog ran\n".encode("utf-16"), None, 2, 0),
    ("semi.csv", b"review;label\nthe cat sat;1\n", "review", 1, 0),
    ("ragged.csv", b"id,smiles\n1,CCO\n2\n3,CCC\n", "smiles", 2, 1),
    ("same.csv", b"smiles,y,note\nCCO,1,keep\nCCC,2,keep\n", "smiles", 2, 0),
    ("quoted.csv", b'text,y\n"a, ""b""\nc",1\r\nd,2\r\n', "text", 2, 0),
    ("latin1.smi", b"CCO\nM\xfcller\n", None, 1, 1),
]
# Name, content, column, what is said.
REFUSED = [
    ("openquote.csv", b'text,y\n"it is fine,1\nsecond line,0\nthird,1\n', "text", "line 2: opens a quotation mark"),
    ("nohead.csv", b"CCO\nc1ccccc1\nCC(=O)O\n", None, "its first line is 'CCO'"),
    ("utf16.txt", "the cat sat\na dog ran\n".encode("utf-16-le"), None, "looks like UTF-16"),
    ("semi.csv", b"review;label\nthe cat sat;1\n", None, "no comma in its first line but ';'"),
    ("dup.csv", b"smiles,smiles,y\nCCO,CCC,1\n", "smiles", "has 2 columns 'smiles'"),
    ("binary.csv", b"PK\x03\x04\x1b[31mRED\x1b[0m,x\n1,2\n", "smiles", "is not text but a ZIP file"),
    ("escapes.csv", b"\x1b[31mRED\x1b[0m,x\n1,2\n", "smiles", "it has \\x1b[31mRED\\x1b[0m, x"),
]


@pytest.mark.parametrize(("name", "content", "column", "good", "bad"), READ, ids=[row[0] for row in READ])
def test_encode_and_train_read_the_same(
    folder: Path, name: str, content: bytes, column: str | None, good: int, bad: int
) -> None:
    path = folder / name
    path.write_bytes(content)
    options = [] if column is None else ["--column", column]
    done = encode("--file", name, *options, "--encoder", "text", "--out", "v.parquet")
    assert done.exit_code == (1 if bad else 0), done.output
    table = pyarrow.parquet.read_table(folder / "v.parquet")
    corpus = read_corpus(path, column)
    rows = zip(table["sequence"].to_pylist(), table["error"].to_pylist(), strict=True)
    encoded = [text for text, error in rows if error is None]
    assert [text.strip() for text in encoded] == corpus.sequences
    assert (len(corpus.sequences), len(corpus.problems)) == (good, bad)
    assert table.num_rows == good + bad
    said = f"{good + bad} sequence{'' if good + bad == 1 else 's'}, {bad} failed"
    assert said in done.stderr


@pytest.mark.parametrize(("name", "content", "column", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_encode_and_train_refuse_the_same(
    folder: Path, name: str, content: bytes, column: str | None, message: str
) -> None:
    path = folder / name
    path.write_bytes(content)
    options = [] if column is None else ["--column", column]
    done = encode("--file", name, *options, "--encoder", "text", "--out", "v.npy")
    assert done.exit_code == 3
    assert message in done.stderr
    assert all(letter.isprintable() or letter == "\n" for letter in done.output)
    assert os.listdir(folder) == [name]
    with pytest.raises(SequenceFileError):
        read_corpus(path, column)


def test_a_malformed_record_costs_its_row(folder: Path) -> None:
    (folder / "ragged.csv").write_bytes(b"id,smiles\n1,CCO\n2\n3,CCC\n")
    for out in FORMATS:
        done = encode("--file", "ragged.csv", "--column", "smiles", "--out", out, "--errors", "bad.tsv")
        assert done.exit_code == 1
        assert "line 3: the record has 1 of 2 fields" in done.stderr
    np.testing.assert_array_equal(np.load("v.npy")[[0, 2]], [vector("CCO"), vector("CCC")])
    assert np.isnan(np.load("v.npy")[1]).all()
    assert (folder / "bad.tsv").read_text().splitlines()[1:] == ["3\tMALFORMED\tthe record has 1 of 2 fields\t"]
    with np.load("v.npz") as arrays:
        assert (arrays["failed"].tolist(), arrays["reason"].tolist()) == ([1], ["the record has 1 of 2 fields"])
    done = encode("--file", "ragged.csv", "--column", "smiles", "--format", "json")
    assert json.loads(done.stdout.splitlines()[1])["error"]["code"] == "MALFORMED"


def test_a_file_without_a_header_loses_no_row(folder: Path) -> None:
    (folder / "nohead.csv").write_bytes(b"CCO\nc1ccccc1\nCC(=O)O\n")
    assert encode("--file", "nohead.csv", "--no-header", "--out", "v.npy").exit_code == 0
    assert len(np.load("v.npy")) == 3
    (folder / "two.csv").write_bytes(b"1;CCO\n2;C\n")
    done = encode("--file", "two.csv", "--no-header", "--column", "2", "--delimiter", ";", "--out", "v.npy")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(np.load("v.npy"), [vector("CCO"), vector("C")])


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n"])
def test_a_delimiter_is_one_character(folder: Path, delimiter: str) -> None:
    done = encode("--file", "a.csv", "--delimiter", delimiter)
    assert done.exit_code == 2
    assert "must be one character" in done.stderr


LINKS: dict[str, Callable[[Path], None]] = {
    "w.csv": lambda folder: None,
    "./w.csv": lambda folder: None,
    "deep/../w.csv": lambda folder: (folder / "deep").mkdir(),
    "symbolic.csv": lambda folder: (folder / "symbolic.csv").symlink_to("w.csv"),
    "hard.csv": lambda folder: (folder / "hard.csv").hardlink_to(folder / "w.csv"),
}


@pytest.mark.parametrize("other", LINKS)
@pytest.mark.parametrize("option", ["--out", "--errors", "--notices"])
def test_an_output_that_is_the_input_is_refused(folder: Path, option: str, other: str) -> None:
    content = b"smiles,y,note\nCCO,1,keep\nCCC,2,keep\n"
    (folder / "w.csv").write_bytes(content)
    LINKS[other](folder)
    done = encode("--file", "w.csv", "--column", "smiles", option, other)
    assert done.exit_code == 2
    assert "are the same file" in done.stderr
    assert "--file" in done.stderr
    assert option in done.stderr
    assert (folder / "w.csv").read_bytes() == content


@pytest.mark.parametrize("other", ["w.csv", "hard.csv"])
def test_an_output_that_standard_input_comes_from_is_refused(folder: Path, other: str) -> None:
    (folder / "w.csv").write_bytes(b"smiles,y\nCCO,1\n")
    LINKS[other](folder)
    command = [*COMMAND, "--file", "-", "--kind", "csv", "--column", "smiles", "--out", other]
    with (folder / "w.csv").open("rb") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True)
    assert done.returncode == 2
    assert "are the same file" in done.stderr
    assert (folder / "w.csv").read_bytes() == b"smiles,y\nCCO,1\n"


@pytest.mark.parametrize("options", [("--out", "--errors"), ("--errors", "--notices"), ("--out", "--notices")])
def test_two_outputs_that_are_one_file_are_refused(folder: Path, options: tuple[str, str]) -> None:
    (folder / "a.smi").write_text("CCO\n")
    (folder / "link.csv").symlink_to("o.csv")
    for other in ("o.csv", "./o.csv", "link.csv"):
        done = encode("--file", "a.smi", options[0], "o.csv", options[1], other)
        assert done.exit_code == 2
        assert all(option in done.stderr for option in options)
        assert not (folder / "o.csv").exists()


def test_tokens_that_are_unknown_or_cut_are_told_of(folder: Path) -> None:
    long = "C" * (MAX_LENGTH + 2)
    (folder / "a.smi").write_text(f"C?\nCCO\nC??\n{long}\nC!\n")
    for out in FORMATS:
        done = encode("--file", "a.smi", "--truncate", "--out", out, "--notices", "noticed.tsv")
        assert done.exit_code == 1
        for part in (
            "line 1: 1 unknown token: 'C?'",
            "line 3: 2 unknown tokens: 'C??'",
            "line 4: 2 tokens cut off",
            "warning: 2 sequences with tokens that the encoder does not know",
            "warning: 1 sequence too long and cut",
            "all noticed lines: noticed.tsv",
        ):
            assert part in done.stderr
    unknown, truncated = [1, 0, 2, 0, 0], [0, 0, 0, 2, 0]
    assert (folder / "noticed.tsv").read_text().splitlines() == [
        "line\tunknown_tokens\ttruncated_tokens\tsequence",
        "1\t1\t0\tC?",
        "3\t2\t0\tC??",
        f"4\t0\t2\t{long}",
    ]
    table = pyarrow.parquet.read_table("v.parquet")
    assert table["unknown_tokens"].to_pylist() == unknown
    assert table["truncated_tokens"].to_pylist() == truncated
    with (folder / "v.csv").open(newline="") as file:
        assert [(int(row["unknown_tokens"]), int(row["truncated_tokens"])) for row in csv.DictReader(file)] == list(
            zip(unknown, truncated, strict=True)
        )
    with np.load("v.npz") as arrays:
        assert arrays["unknown_tokens"].tolist() == unknown
        assert arrays["truncated_tokens"].tolist() == truncated
    done = encode("C?", "CC", "--format", "json")
    assert [json.loads(line)["unknown_tokens"] for line in done.stdout.splitlines()] == [1, 0]


def test_strict_fails_where_anything_was_noticed(folder: Path) -> None:
    assert encode("C?").exit_code == 0
    assert encode("C?", "--strict").exit_code == 1
    assert encode("CC", "--strict").exit_code == 0
    assert encode("C" * (MAX_LENGTH + 1), "--truncate", "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("name", "tokens"), [*((name, False) for name in FORMATS), ("v.npz", True), ("v.parquet", True)]
)
def test_a_full_disk_is_a_failure_that_leaves_nothing(folder: Path, name: str, tokens: bool) -> None:
    (folder / "a.smi").write_text("".join(f"C{index}N{index % 7}\n" for index in range(3000)))
    command = [*COMMAND, "--file", "a.smi", "--out", name, *(["--tokens"] if tokens else [])]
    done = subprocess.run([sys.executable, "-c", LIMITED, *command], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert f"Error: {name}: cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert os.listdir(folder) == ["a.smi"]
    (folder / name).symlink_to("/dev/full")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert f"Error: {name}: cannot be written (No space left on device)" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert sorted(os.listdir(folder)) == ["a.smi", name]


def test_lists_of_lines_on_a_full_disk_are_a_failure_too(folder: Path) -> None:
    (folder / "a.smi").write_text("C!\nC?\n")
    for option in ("--errors", "--notices"):
        done = encode("--file", "a.smi", "--out", "v.npy", option, "/dev/full")
        assert done.exit_code == 3
        assert "Error: /dev/full: cannot be written (No space left on device)" in done.stderr
        assert os.listdir(folder) == ["a.smi"]


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_standard_output_that_cannot_be_written_is_a_failure(folder: Path, form: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "CCO", "--format", form], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3, done.stderr
    assert "standard output: cannot be written (No space left on device)" in done.stderr
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run([*COMMAND, "CCO", "--format", form], stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing(folder: Path, service: FakeService, name: str, number: signal.Signals) -> None:
    (folder / "a.smi").write_text("C\n" * 1000)
    service.hold, service.never_held = threading.Event(), b"N"
    command = [*COMMAND, "--file", "a.smi", "--out", name, "--errors", "bad.tsv", "--batch-size", "10"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert service.held.wait(60)
    assert len([name for name in os.listdir(folder) if name.endswith(".partial")]) == 2
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number
    assert os.listdir(folder) == ["a.smi"]


def test_a_terminal_shows_no_control_characters(folder: Path) -> None:
    name = "\x1b[31mred\x1b[0m"
    (folder / "a.txt").write_bytes(b"\x1b]0;title\x07C\nC!\x1b[2J\n")
    for arguments in (["--file", "a.txt"], ["--file", f"{name}.smi"], [name], [f"--{name}"], ["--encoder", name, "C"]):
        done = encode(*arguments)
        assert all(letter.isprintable() or letter in "\n\t" for letter in done.output), done.output
    # A program gets what is there.
    assert "\x1b]0;title\x07C" in encode("--file", "a.txt", "--format", "csv").stdout
