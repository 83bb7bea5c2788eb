from pathlib import Path

import numpy as np
import pytest

from birnn.cli.file_options import Reading
from birnn_loadtest.arrivals import Trace
from birnn_loadtest.mix_options import read_batches, read_mix


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.smi").write_text("C\nCC\n")
    (tmp_path / "b.txt").write_text("one two\n")
    (tmp_path / "empty.smi").write_text("\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_batches_have_weights() -> None:
    assert read_batches("8") == [(8, 1.0)]
    assert read_batches("1=90,32=2.5") == [(1, 90.0), (32, 2.5)]


@pytest.mark.parametrize("text", ["", "0", "x", "1=", "1=0", "1=x", "1,,2", "16385", "-1"])
def test_what_is_no_batch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|weight|number"):
        read_batches(text)


def test_encoders_have_versions_weights_and_files(folder: Path) -> None:
    mix, files = read_mix(["smiles@2=3", "text"], ["smiles=a.smi", "text=b.txt"], Reading(), [(1, 1.0)], None)
    assert [(part.encoder, part.version, part.weight) for part in mix.parts] == [
        ("smiles", "2", 3.0),
        ("text", None, 1.0),
    ]
    assert [list(part.sequences) for part in mix.parts] == [[b"C", b"CC"], [b"one two"]]
    assert files == ["a.smi (2 sequences)", "b.txt (1 sequence)"]


def test_one_file_serves_all_and_is_read_once(folder: Path) -> None:
    mix, files = read_mix(["a", "b"], ["a.smi"], Reading(), [(1, 1.0)], None)
    assert mix.parts[0].sequences is mix.parts[1].sequences
    assert len(files) == 1


def test_a_name_with_an_equals_sign_is_a_file(folder: Path) -> None:
    (folder / "x=1.smi").write_text("C\n")
    mix, _ = read_mix(["smiles"], ["x=1.smi"], Reading(), [(1, 1.0)], None)
    assert list(mix.parts[0].sequences) == [b"C"]


@pytest.mark.parametrize(
    ("encoders", "files", "message"),
    [
        (["smiles", "smiles"], ["a.smi"], "can be named once"),
        (["smiles", "text"], ["a.smi", "b.txt"], "write ENCODER=FILE"),
        (["smiles", "text"], ["smiles=a.smi"], "no file for encoder 'text'"),
        (["smiles@"], ["a.smi"], "is not an encoder"),
        (["=2"], ["a.smi"], "is not an encoder"),
        (["smiles=0"], ["a.smi"], "must be above 0"),
        (["smiles"], ["missing.smi"], "missing.smi"),
        (["smiles"], ["empty.smi"], "holds no sequence"),
    ],
)
def test_what_does_not_go_together_is_explained(
    folder: Path, encoders: list[str], files: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_mix(encoders, files, Reading(), [(1, 1.0)], None)


def test_a_trace_calls_only_encoders_that_are_named(folder: Path) -> None:
    trace = Trace("trace.csv", np.array([0.0]), ["other"], None)
    with pytest.raises(ValueError, match="'other', which no --encoder names"):
        read_mix(["smiles"], ["a.smi"], Reading(), [(1, 1.0)], trace)
