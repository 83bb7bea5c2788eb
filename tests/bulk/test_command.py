"""`birnn bulk`, as it is used."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from birnn.cli.main import main
from birnn_bulk.output import locked
from tests.bulk.jobs import content, molecules
from tests.service.engine.bundles import small_bundle
from tests.service.sources.moto_server import BUCKET, moto_server


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("models")).path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bulk", *map(str, arguments)])


def test_inputs_of_all_sorts_are_encoded_in_order(encoder: Path, tmp_path: Path) -> None:
    data, strings = tmp_path / "data", molecules(40)
    (data / "deep").mkdir(parents=True)
    (data / "a.csv.zst").write_bytes(pa.compress("\n".join(["smiles", *strings[:10]]).encode(), "zstd", asbytes=True))
    (data / "deep" / "b.smi").write_text("\n".join(strings[10:20]))
    pq.write_table(pa.table({"smiles": strings[20:30]}), data / "deep" / "c.parquet")
    (data / "README.md").write_text("not for us")
    (data / ".hidden.smi").write_text("C%\n")
    last = tmp_path / "d.txt"
    last.write_text("\n".join(strings[30:]))
    done = run(data, last, "-o", tmp_path / "out", "--encoder", encoder, "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "1 file of other kinds left out, such as " in done.output
    table = pq.read_table(tmp_path / "out" / "parts")
    assert table.column("sequence").to_pylist() == strings
    names = [data / "a.csv.zst", data / "deep" / "b.smi", data / "deep" / "c.parquet", last]
    assert table.column("input").unique().to_pylist() == [str(name) for name in names]


def test_a_store_is_read_as_files_are(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strings = molecules(50)
    with moto_server() as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        store = server.store("data")
        store.put("a.smi", "\n".join(strings[:25]).encode())
        packed = pa.BufferOutputStream()
        pq.write_table(pa.table({"n": range(25), "smiles": strings[25:]}), packed, row_group_size=7)
        store.put("b.parquet", packed.getvalue().to_pybytes())
        out, url = tmp_path / "out", f"s3://{BUCKET}/data"
        job = ("-o", out, "--encoder", encoder, "--workers", 1, "--part-rows", 10)
        done = run(url, *job, "--limit", 45)
        assert done.exit_code == 0, done.output
        assert pq.read_table(out / "parts").column("sequence").to_pylist() == strings[:45]
        assert content(out)["manifest.json"].count(f'"{url}/b.parquet"'.encode()) == 2
        store.put("a.smi", b"CCN\n")
        assert f"the input {url}/a.smi is not what it was" in run(url, *job, "--limit", 45).output
        assert run(f"{url}/b.parquet", *job[2:], "-o", tmp_path / "one").exit_code == 0
        assert "holds no missing.smi" in run(f"{url}/missing.smi", *job).output


def test_a_dry_run_writes_nothing(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("\n".join(molecules(300)))
    out = tmp_path / "out"
    job = (tmp_path / "a.smi", "-o", out, "--encoder", encoder, "--part-rows", 50, "--workers", 1)
    done = run(*job, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "300 records in 6 parts of 50, 0 done" in done.output
    assert "300 records are left" in done.output
    assert "of one core in all" in done.output
    assert not out.exists()
    assert run(*job).exit_code == 0
    before = content(out)
    assert "nothing is left to do" in run(*job, "--dry-run").output
    # A complete job is done again in no time, and as it was.
    assert run(*job).exit_code == 0
    assert content(out) == before


def test_what_cannot_be_done_is_said(encoder: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "a.smi", tmp_path / "out"
    file.write_text("CCO\n")
    assert "--keep line has the name of a column" in run(file, "-o", out, "--keep", "line").output
    assert "lies in the input" in run(tmp_path, "-o", out).output
    assert "i/n" in run(file, "-o", out, "--part", "3/3").output
    for arguments, status, message in (
        ((tmp_path / "none.smi", "-o", out, "--encoder", encoder), 3, "no such file"),
        ((file, "-o", out, "--encoder", "none", "--models", encoder.parents[1]), 3, "holds only small"),
        ((file, "-o", out, "--encoder", encoder, "--precision", "fp16", "--device", "cpu"), 3, "needs CUDA"),
    ):
        done = run(*arguments)
        assert (done.exit_code, message in done.output) == (status, True), done.output
    with locked(out, shared=True):
        assert "another `birnn bulk` is at work" in run(file, "-o", out, "--encoder", encoder).output
        assert run(file, "-o", out, "--encoder", encoder, "--part", "0/1", "--workers", 1).exit_code == 0
