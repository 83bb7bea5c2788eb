"""Readers of records: wherever parts are cut, they hold what the file holds."""

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birnn.cli.file_options import Reading
from birnn_bulk.inputs import LocalFile, open_rows
from birnn_bulk.plan import BulkError
from birnn_bulk.rows import Rows

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
RECORDS = st.lists(st.tuples(TEXTS, TEXTS), max_size=60)


def opened(path: Path, keep: tuple[str, ...] = ("id",), column: str | None = "smiles") -> Rows:
    return open_rows(LocalFile(str(path), path, path.stat().st_size), Reading(column=column), keep)


def parquet(records: list[tuple[str, str]], group: int, kind: pa.DataType) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "a.parquet"
        sequences = pa.array([first for first, _ in records], pa.string()).cast(kind)
        table = pa.table({"id": pa.array([second for _, second in records], pa.string()), "smiles": sequences})
        pq.write_table(table, path, row_group_size=group)
        return path

    return write


def table(records: list[tuple[str, str]], packed: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("id", "smiles"), *((b, a) for a, b in records)])
        path = folder / ("a.csv.zst" if packed else "a.csv")
        content = text.getvalue().encode()
        path.write_bytes(pa.compress(content, "zstd", asbytes=True) if packed else content)
        return path

    return write


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(RECORDS, st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=12), st.data())
def test_records_are_the_same_wherever_a_file_is_cut(
    tmp_path: Path, records: list[tuple[str, str]], cuts: list[tuple[bool, int]], data: st.DataObject
) -> None:
    kinds = st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
    write = data.draw(
        st.builds(parquet, st.just(records), st.integers(1, 20), kinds)
        | st.builds(table, st.just(records), st.booleans())
    )
    path = write(tmp_path)
    rows = opened(path)
    position = 0
    for passed, count in [*cuts, (False, 100)]:
        expected = records[position : position + count]
        if passed:
            assert rows.skip(count) == len(expected)
        else:
            found = rows.take(count)
            assert found.column(1).to_pylist() == [first.encode() for first, _ in expected]
            assert found.column(2).to_pylist() == [None] * len(expected)
            assert found.column(3).to_pylist() == [second for _, second in expected]
            if path.suffix == ".parquet":
                assert found.column(0).to_pylist() == list(range(position + 1, position + 1 + len(expected)))
        position += len(expected)
    rows.close()


def test_records_without_a_sequence_say_why(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,smiles\n1,CCO\n2\n3,CC\n")
    assert opened(path).take(9).to_pydict() == {
        "line": [2, 3, 4],
        "sequence": [b"CCO", b"", b"CC"],
        "problem": [None, "the record has 1 of 2 fields", None],
        "id": ["1", None, "3"],
    }
    pq.write_table(pa.table({"smiles": ["CCO", None], "n": [1.5, 2.5]}), tmp_path / "a.parquet")
    assert opened(tmp_path / "a.parquet", ("n",), None).take(9).to_pydict() == {
        "line": [1, 2],
        "sequence": [b"CCO", b""],
        "problem": [None, "the value is null"],
        "n": [1.5, 2.5],
    }


def test_the_rest_of_a_line_is_its_title(tmp_path: Path) -> None:
    path = tmp_path / "a.smi.gz"
    path.write_bytes(gzip.compress(b"CCO ethanol  90% \nCC\n\n C\tmethane\n"))
    found = opened(path, ("title",), None).take(9)
    assert found.column("sequence").to_pylist() == [b"CCO", b"CC", b"", b"C"]
    assert found.column("title").to_pylist() == ["ethanol  90%", "", "", "methane"]


@pytest.mark.parametrize(
    ("name", "content", "keep", "column", "message"),
    [
        ("a.parquet", b"PAR1 nothing", (), None, "cannot be read"),
        ("a.smi", b"CCO\n", ("name",), None, "has the rest of a line, as 'title' to keep, not name"),
        ("a.csv", b"a,b\n1,2\n", ("a",), None, "name the one with the sequences"),
        ("a.csv", b"a,b\n1,2\n", ("c",), "a", "has no column 'c'"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, keep: tuple[str, ...], column: str | None, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BulkError, match=message):
        opened(path, keep, column).take(1)


def test_columns_of_parquet_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["x"], "b": ["y"], "n": [1]}), path)
    for column, message in ((None, "name the column .*it has a, b, n"), ("c", "no column 'c'"), ("n", "int64, and no")):
        with pytest.raises(BulkError, match=message):
            opened(path, (), column)
